"""Permissions in examples/cluster: users, tokens, passwords, and that each secret is where it is read."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.cluster_files import (
    CLUSTERS,
    COMPOSE,
    DOCKERFILE,
    HERE,
    OUR_PODS,
    OURS,
    RAY_UP,
    README,
    blocks,
    containers,
    parsed,
    pods,
)


def test_no_process_is_root() -> None:
    uid = re.search(r"^ARG HEADHUNT_UID=(\d+)$", DOCKERFILE, re.MULTILINE)
    assert uid
    assert "\nUSER headhunt\n" in DOCKERFILE
    for name, pod in OUR_PODS.items():
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"]) == (True, int(uid[1])), name
        assert context["fsGroupChangePolicy"] == "OnRootMismatch", name  # not every file of the volume at every start
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
    assert all("user" not in COMPOSE["services"][name] for name in OURS)
    assert COMPOSE["services"]["headhunt"]["build"]["args"] == {"HEADHUNT_UID": f"${{HEADHUNT_UID:-{uid[1]}}}"}
    assert "export HEADHUNT_UID=" in README


def test_every_secret_that_is_used_is_made() -> None:
    made = set(re.findall(r"secrets/(\w+)", README))
    made |= set((re.search(r"for name in (.*?);", README) or ["", ""])[1].split())
    declared = {name: Path(one["file"]) for name, one in COMPOSE["secrets"].items()}
    for name, file in declared.items():
        assert file == Path("secrets") / name
        assert name in made, name
    used = set()
    for name, service in COMPOSE["services"].items():
        given = set(service.get("secrets", ()))
        used |= given
        read = set(re.findall(r"/run/secrets/(\w+)", json.dumps(service)))
        assert read == given, name
    assert used == set(declared)


def test_every_secret_of_kubernetes_is_made() -> None:
    created = {}
    for line in blocks():
        if line.startswith("kubectl create secret generic"):
            words = shlex.split(line)
            created[words[4]] = dict(re.findall(r"--from-file=(\w+)=(\S+)", line))
    for keys in created.values():
        for file in keys.values():
            assert Path(file).name in COMPOSE["secrets"], file
    for name, container in containers():
        for variable in container.get("env", ()):
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["key"] in created[reference["name"]], name
    for cluster in CLUSTERS.values():
        assert cluster["authOptions"]["mode"] == "token"
        assert "auth_token" in created[cluster["authOptions"]["secretName"]]
    for _, pod in pods():
        for volume in pod.get("volumes", ()):
            if "secret" in volume:
                assert {item["key"] for item in volume["secret"]["items"]} <= set(
                    created[volume["secret"]["secretName"]]
                )


def test_no_file_has_a_password_in_it() -> None:
    for file in HERE.iterdir():
        if file.is_file():
            assert not re.search(r"://\w+:[^@/\s]+@", file.read_text()), file.name
    for name, service in COMPOSE["services"].items():
        environment = service.get("environment", {})
        assert not [key for key in environment if re.search(r"(PASSWORD|TOKEN)$", key)], name


def test_service_and_ray_have_one_token_and_the_password_of_the_database() -> None:
    for name in OURS:
        environment = COMPOSE["services"][name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token", name
        assert (environment["RAY_AUTH_TOKEN_PATH"], environment["PGPASSFILE"]) == (
            "/run/secrets/ray_token",
            "/run/secrets/pgpass",
        ), name
    for name, pod in OUR_PODS.items():
        environment = {one["name"]: one for one in pod["containers"][0]["env"]}
        assert environment["PGPASSWORD"]["valueFrom"]["secretKeyRef"]["key"] == "postgres_password", name
    service = {one["name"]: one for one in OUR_PODS["Deployment headhunt"]["containers"][0]["env"]}
    assert service["RAY_AUTH_MODE"]["value"] == "token"
    secrets = {cluster["authOptions"]["secretName"] for cluster in CLUSTERS.values()}
    assert {service["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"]} == secrets
    given = set(re.findall(r"--env=(\S+)", " ".join(RAY_UP["docker"]["run_options"])))
    shared = {
        "RAY_AUTH_MODE=token",
        "RAY_AUTH_TOKEN_PATH=/etc/headhunt/ray_token",
        "PGPASSFILE=/etc/headhunt/pgpass",
    }
    assert shared <= given
    assert shared == set(re.findall(r"--env (\S+)", README))


def test_token_files_are_where_the_health_checks_and_the_service_look() -> None:
    container = OUR_PODS["Deployment headhunt"]["containers"][0]
    token = str(parsed(container["command"])["token_file"])
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volume = next(one for one in OUR_PODS["Deployment headhunt"]["volumes"] if "secret" in one)
    assert token in [f"{mounted[volume['name']]}/{item['path']}" for item in volume["secret"]["items"]]
    in_compose = COMPOSE["services"]["headhunt"]
    for command, given in (
        (container["readinessProbe"]["exec"]["command"], token),
        (in_compose["healthcheck"]["test"][1:], str(parsed(in_compose["command"])["token_file"])),
    ):
        assert command[0] == "python"
        assert command[1] == "/opt/headhunt/healthy.py"
        assert command[-1] == given
    assert re.search(r"WORKDIR /opt/headhunt\n.*COPY examples/cluster/healthy.py \./\n", DOCKERFILE, re.DOTALL)


class _Service(BaseHTTPRequestHandler):
    """Answers like the service's /healthz, with `status`."""

    status = 200

    def do_GET(self) -> None:
        is_known = self.headers["Authorization"] == "Bearer 0123456789abcdef"
        self.send_response(type(self).status if is_known else 401)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "token", "said"),
    [(200, "0123456789abcdef\n", ""), (503, "0123456789abcdef", "503"), (200, "another-one-1234", "401")],
)
def test_the_health_check_gives_the_token_and_fails_with_the_service(
    status: int, token: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    answering = type("Answering", (_Service,), {"status": status})
    with HTTPServer(("127.0.0.1", 0), answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/healthz"
        done = subprocess.run(
            [sys.executable, HERE / "healthy.py", url, file], capture_output=True, text=True, check=False
        )
        server.shutdown()
    assert (done.returncode == 0) == (not said)
    assert said in done.stderr
