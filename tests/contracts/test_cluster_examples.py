"""The files of examples/cluster are valid, and agree with each other, with the program and with its versions."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import dropwhile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import typer
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from features.configfile import load, merged, validate
from headhunt import app
from reports.config import Run
from reports.service.admission import admit, parse
from reports.service.raycluster import QUEUE_SECONDS, SLOT, STOP_SECONDS
from reports.service.settings import Settings, check

ROOT = Path(__file__).parents[2]
HERE = ROOT / "examples" / "cluster"
SCHEMAS = Path(__file__).with_name("schemas")
WORK = "/srv/headhunt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"headhunt:{PROJECT['version']}"
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
README = (HERE / "README.md").read_text()
DOCKERFILE = (HERE / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((HERE / "docker-compose.yml").read_text())
RAY_UP = yaml.safe_load((HERE / "ray-up.yml").read_text())
OBJECTS = {
    name: list(yaml.safe_load_all((HERE / name).read_text()))
    for name in ("storage.yml", "kubernetes.yml", "rayjob.yml")
}
KUBERNETES = [*OBJECTS["storage.yml"], *OBJECTS["kubernetes.yml"]]
RAY_JOB = next(one for one in OBJECTS["rayjob.yml"] if one["kind"] == "RayJob")
SEARCH = HERE / "stanford_cars_8_gpus.yaml"

PUBLISHED = {
    "python:3.11-slim-bookworm": "docker-library/official-images, library/python, at 01732a42e52ea2aca4809bd272fc38002f19006a",
    "postgres:17": "docker-library/postgres, versions.json, as https://deepwiki.com/docker-library/postgres tells it",
}
"""The images of others that the examples use, and where their tags were found on 27 November 2026: there is no registry here to
ask. Look a new one up before it is written down."""

OURS = ("ray-head", "ray-worker", "headhunt")
"""The services of the compose file that run our image."""

CLUSTERS = {
    "kubernetes.yml": next(one["spec"] for one in KUBERNETES if one["kind"] == "RayCluster"),
    "rayjob.yml": RAY_JOB["spec"]["rayClusterSpec"],
}


def kind(name: str, of: str) -> dict[str, Any]:
    """An object of storage.yml or kubernetes.yml."""
    found: dict[str, Any] = next(one for one in KUBERNETES if (one["kind"], one["metadata"]["name"]) == (of, name))
    return found


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod of the Kubernetes files, with its name in messages."""
    for one in KUBERNETES:
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield f"{one['kind']} {one['metadata']['name']}", one["spec"]["template"]["spec"]
    for file, cluster in CLUSTERS.items():
        yield f"{file}: head", cluster["headGroupSpec"]["template"]["spec"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{file}: {group['groupName']}", group["template"]["spec"]


OUR_PODS = {name: pod for name, pod in pods() if "postgres" not in name}


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every container of the Kubernetes files."""
    for name, pod in pods():
        for container in pod["containers"]:
            yield name, container


def labels() -> list[dict[str, str]]:
    """The labels of every pod there may be: of the Kubernetes files, with those that KubeRay adds, and of KubeRay itself."""
    found = []
    for one in KUBERNETES:
        if one["kind"] in ("Deployment", "StatefulSet"):
            found.append(one["spec"]["template"]["metadata"]["labels"])
    names = {"kubernetes.yml": "headhunt", "rayjob.yml": "stanford-cars-8-gpus-x7x7x"}
    for file, cluster in CLUSTERS.items():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            given = group["template"].get("metadata", {}).get("labels", {})
            found.append({"ray.io/cluster": names[file], "ray.io/is-ray-node": "yes", **given})
    found.append({"batch.kubernetes.io/job-name": RAY_JOB["metadata"]["name"]})  # hands the entrypoint in
    found.append({"app.kubernetes.io/component": "kuberay-operator"})
    return found


def selected(selector: dict[str, Any]) -> list[dict[str, str]]:
    """The pods that a policy's selector is for."""
    wanted = selector.get("matchLabels", {}).items()
    keys = {one["key"] for one in selector.get("matchExpressions", ()) if one["operator"] == "Exists"}
    return [one for one in labels() if wanted <= one.items() and keys <= one.keys()]


def start_options(cluster: dict[str, Any]) -> Iterator[list[str]]:
    """What KubeRay gives to `ray start` in a cluster's pods: it writes each of rayStartParams into a line for the shell."""
    for place, group in [("--head", cluster["headGroupSpec"]), *(("", one) for one in cluster["workerGroupSpecs"])]:
        line = " ".join(f"--{key}={value}" for key, value in group["rayStartParams"].items())
        yield [*([place] if place else []), *shlex.split(line)]


def blocks() -> list[str]:
    """The page's shell commands, a line each."""
    found = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.replace("\\\n", " ").splitlines()]


def commands() -> Iterator[list[str]]:
    """Every command line of ours and of Ray's in these files."""
    for service in COMPOSE["services"].values():
        yield [str(word) for word in service.get("command", ())]
        test = service.get("healthcheck", {}).get("test", [None])
        yield [str(word) for word in test[1:]]
    for _, container in containers():
        yield container.get("command", [])
    for cluster in CLUSTERS.values():
        yield from (["ray", "start", *options] for options in start_options(cluster))
    yield shlex.split(RAY_JOB["spec"]["entrypoint"])
    for line in [*RAY_UP["head_start_ray_commands"], *RAY_UP["worker_start_ray_commands"]]:
        yield shlex.split(line)
    for line in blocks():
        words = shlex.split(line, comments=True)
        if IMAGE in words and "run" in words:
            words = words[words.index(IMAGE) + 1 :]
        words = without_variables(words)
        yield [Path(words[0]).name, *words[1:]] if words and words[0].endswith(("/ray", "/headhunt")) else words
    for comment in re.findall(
        r"^# {3,}(\S.*)$", "".join(file.read_text() for file in HERE.glob("*.y*ml")), re.MULTILINE
    ):
        words = without_variables(shlex.split(comment, comments=True))
        yield [Path(words[0]).name, *words[1:]]


def without_variables(words: list[str]) -> list[str]:
    """A command without the variables that are set before it."""
    return list(dropwhile(re.compile(r"[A-Za-z_]\w*=").match, words))


@cache
def programs() -> dict[str, Any]:
    """What the command lines are parsed with."""
    from ray.scripts.scripts import cli

    return {"headhunt": typer.main.get_command(app), "ray": cli}


def parsed(words: list[str]) -> dict[str, Any]:
    """The values that a command would be called with; a usage error of click when it does not take these words."""
    command, rest = programs()[words[0]], words[1:]
    while hasattr(command, "commands"):
        assert rest[0] in command.commands, f"there is no command {' '.join(words)}"
        command, rest = command.commands[rest[0]], rest[1:]
    parameters: dict[str, Any] = command.make_context(command.name, list(rest)).params
    return parameters


LINES = [words for words in commands() if words and words[0] in ("headhunt", "ray")]
SERVES = [words for words in LINES if words[1] == "serve"]


def is_ignored(path: str) -> bool:
    """Whether .dockerignore keeps a file or folder out of the image: the last line that fits it counts."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        places = [path, *(str(parent) for parent in Path(path).parents)]
        if line and not line.startswith("#") and any(fnmatch(place, pattern) for place in places):
            ignored = not line.startswith("!")
    return ignored


def test_the_compose_file_is_valid() -> None:
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / "compose-spec.json").read_text())).validate(COMPOSE)


def test_the_kubernetes_objects_are_valid() -> None:
    schemas = {name: json.loads((SCHEMAS / name).read_text()) for name in ("kubernetes.json", "kuberay.json")}
    registry: Any = Registry().with_resources(
        [(name, Resource(schema, specification=DRAFT202012)) for name, schema in schemas.items()]
    )
    kinds = {
        **{name: f"kubernetes.json#/$defs/{full}" for name, full in schemas["kubernetes.json"]["kinds"].items()},
        **{name: f"kuberay.json#/$defs/{name}" for name in ("RayCluster", "RayJob")},
    }
    for one in [*KUBERNETES, *OBJECTS["rayjob.yml"]]:
        schema = {"$ref": kinds[one["kind"]], "required": ["apiVersion", "kind", "metadata", "spec"]}
        jsonschema.Draft202012Validator(schema, registry=registry).validate(one)


def test_ray_takes_the_file_for_ray_up() -> None:
    from ray.autoscaler import _private
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(_private.__file__).parents[1] / "ray-schema.json").read_text())
    jsonschema.validate(RAY_UP, schema)
    prepared = prepare_config(copy.deepcopy(RAY_UP))
    validate_config(prepared)
    assert prepared["max_workers"] == len(RAY_UP["provider"]["worker_ips"])
    assert RAY_UP["docker"]["worker_run_options"] == ["--gpus=all"]
    assert not any("gpus" in option for option in RAY_UP["docker"]["run_options"])


def test_ray_up_starts_every_worker() -> None:
    """By Ray's first autoscaler, which knows that the head is no worker; `ray up` takes the second unless it is told not to."""
    from ray.autoscaler._private import commands as launcher
    from ray.autoscaler._private.resource_demand_scheduler import _add_min_workers_nodes
    from ray.autoscaler._private.util import prepare_config

    lines = [
        line for text in (README, (HERE / "ray-up.yml").read_text()) for line in re.findall(r".*ray up .*yml", text)
    ]
    assert len(lines) == 2
    assert all(re.search(r"(^|# +)RAY_UP_enable_autoscaler_v2=0 \.venv/bin/ray up ", line) for line in lines)
    assert 'os.getenv("RAY_UP_enable_autoscaler_v2", "1") == "1"' in Path(launcher.__file__).read_text()
    prepared: Any = prepare_config(copy.deepcopy(RAY_UP))
    kinds, head = prepared["available_node_types"], prepared["head_node_type"]
    _, _, started = _add_min_workers_nodes([{}], {head: 1}, kinds, prepared["max_workers"], head, [], lambda *_: None)
    assert sum(started.values()) == len(RAY_UP["provider"]["worker_ips"])


@pytest.mark.parametrize("words", LINES, ids=lambda words: " ".join(words[:2]))
def test_every_command_has_these_options(words: list[str]) -> None:
    try:
        parsed(words)
    except Exception as error:
        pytest.fail(f"{shlex.join(words)}: {getattr(error, 'message', error)}")


def test_commands_were_found_in_every_file() -> None:
    assert sum(words[1] == "start" for words in LINES) == 2 + 2 + 2 + 2  # compose, kubernetes, RayJob, ray up
    assert len(SERVES) == 3
    assert {words[1] for words in LINES} >= {"run", "submit", "jobs", "stop", "up", "down", "health-check"}


@pytest.mark.parametrize("words", SERVES, ids=["compose", "kubernetes", "README"])
def test_the_service_takes_its_settings(words: list[str]) -> None:
    given = parsed(words)
    settings = Settings(
        root=given["root"], host=given["host"], port=given["port"], storage=given["storage"], ray=given["ray"],
        token="0123456789abcdef", hosts=tuple(given["allowed_host"]),
    )  # fmt: skip
    check(settings)
    assert str(settings.root) == WORK
    assert given["token_file"].name == "token"
    assert settings.is_loopback or "localhost" in settings.hosts  # its health check asks there


def test_image_and_versions_are_those_of_this_source() -> None:
    ours = [COMPOSE["services"][name]["image"] for name in OURS]
    ours += [container["image"] for _, container in containers() if container["name"] != "postgres"]
    assert {*ours, RAY_UP["docker"]["image"]} == {IMAGE}
    every_file = "".join(file.read_text() for file in HERE.iterdir() if file.is_file())
    assert set(re.findall(r"headhunt:\d[\w.]*", every_file)) == {IMAGE}
    assert {cluster["rayVersion"] for cluster in CLUSTERS.values()} == {PINS["ray"]}
    assert [name for name in OURS if "build" in COMPOSE["services"][name]] == ["headhunt"]  # one build of one tag


def test_images_of_others_have_tags_that_there_are() -> None:
    used = [one["image"] for one in COMPOSE["services"].values()]
    used += [one["image"] for _, pod in pods() for one in (*pod["containers"], *pod.get("initContainers", ()))]
    used += [RAY_UP["docker"]["image"], *re.findall(r"^FROM (?:--\S+ )*(\S+)", DOCKERFILE, re.MULTILINE)]
    assert set(used) - {IMAGE} == PUBLISHED.keys()
    assert len({image.partition(":")[0] for image in PUBLISHED}) == len(PUBLISHED), "one version of each"


def test_the_image_has_the_python_that_the_constraints_are_for() -> None:
    resolved = re.search(r"--python-version (\S+)", (ROOT / "Makefile").read_text())
    base = re.search(r"^FROM python:(\d+\.\d+)-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert resolved
    assert base
    assert base[1] == resolved[1]


def test_the_image_has_the_package_with_extras_that_exist() -> None:
    installed = re.search(r"pip install .*--constraint constraints.txt '\.\[(.*)\]'", DOCKERFILE)
    assert installed
    extras = set(installed[1].split(","))
    assert {"gpu", "postgresql"} <= extras <= set(PROJECT["optional-dependencies"])


def test_the_image_gets_what_it_copies_and_no_secrets() -> None:
    copied = [word for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    for path in copied:
        assert (ROOT / path).exists(), path
        assert not is_ignored(path), path
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*packages["only-include"], PROJECT["readme"], *PROJECT["license-files"]} <= set(copied)
    for path in (".git", ".venv", "runs", "examples/cluster/secrets/token", "examples/cluster/work", "shared"):
        assert is_ignored(path), path
    assert {"/secrets/", "/work/"} <= set((HERE / ".gitignore").read_text().split())


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


def test_the_work_directory_is_at_the_same_path_everywhere() -> None:
    assert f"\nWORKDIR {WORK}\nENV" in re.sub(r"\n+(#.*\n)*", "\n", DOCKERFILE)
    sources = set()
    for name in OURS:
        mounts = dict(volume.rsplit(":", 1)[::-1] for volume in COMPOSE["services"][name]["volumes"])
        sources.add(mounts[WORK])
    assert len(sources) == 1
    for name, pod in OUR_PODS.items():
        claims = {one["name"]: one["persistentVolumeClaim"] for one in pod["volumes"] if "persistentVolumeClaim" in one}
        assert claims == {"work": {"claimName": kind("headhunt-work", "PersistentVolumeClaim")["metadata"]["name"]}}, (
            name
        )
        for container in pod["containers"]:
            paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert paths["work"] == WORK, name
            assert set(paths) <= {volume["name"] for volume in pod["volumes"]}, name
    assert "ReadWriteMany" in kind("headhunt-work", "PersistentVolumeClaim")["spec"]["accessModes"]
    assert f"--volume={WORK}:{WORK}" in RAY_UP["docker"]["run_options"]
    assert f"--volume {WORK}:{WORK}" in README


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


def test_heads_give_jobs_time_and_run_two_at_once() -> None:
    wanted = {
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
        "RAY_JOB_START_TIMEOUT_SECONDS": str(QUEUE_SECONDS),
    }
    pod = OUR_PODS["kubernetes.yml: head"]["containers"][0]
    environments = [
        COMPOSE["services"]["ray-head"]["environment"],
        {one["name"]: one.get("value") for one in pod["env"]},
        dict(
            option.removeprefix("--env=").split("=") for option in RAY_UP["docker"]["run_options"] if "--env" in option
        ),
    ]
    for environment in environments:
        assert wanted.items() <= environment.items()
    heads = [parsed(words) for words in LINES if words[1] == "start" and "--head" in words]
    assert len(heads) == 4
    for head in heads:
        assert (head["num_cpus"], head["num_gpus"]) == (0, 0)
    of_services = [json.loads(head["resources"]) for head in heads if head["resources"] != "{}"]
    assert of_services == [{SLOT: 2}] * 3  # the RayJob has no service
    for words in LINES:
        if words[1] == "start" and "--head" not in words:
            assert SLOT not in parsed(words)["resources"]


def test_variables_of_ray_are_ones_that_it_reads() -> None:
    import ray

    package = Path(ray.__file__).parent
    readers = (
        "_common/usage/usage_constants.py",
        "_private/accelerators/accelerator.py",
        "_private/authentication_test_utils.py",
        "_private/utils.py",
        "dashboard/consts.py",
        "dashboard/modules/job/job_supervisor.py",
    )
    text = "".join((package / reader).read_text() for reader in readers)
    names = set(COMPOSE["services"]["ray-head"]["environment"]) - {"PGPASSFILE"}
    names |= {one["name"] for one in OUR_PODS["Deployment headhunt"]["containers"][0]["env"]} - {"PGPASSWORD"}
    assert {name for name in names if f'"{name}"' not in text} == set()


def test_addresses_name_what_is_there() -> None:
    services = COMPOSE["services"]
    head = parsed(services["ray-head"]["command"])
    worker = parsed(services["ray-worker"]["command"])
    serve = parsed(services["headhunt"]["command"])
    assert worker["address"] == f"ray-head:{head['port']}"
    assert serve["ray"] == f"http://ray-head:{head['dashboard_port']}"
    assert urlsplit(serve["storage"]).hostname in services
    assert urlsplit(serve["storage"]).port == 5432
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for needed in service.get("depends_on", ()):
            assert "healthcheck" in services[needed]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"headhunt": [f"127.0.0.1:{serve['port']}:{serve['port']}"]}  # and none of Ray's
    assert f"http://localhost:{serve['port']}/healthz" in services["headhunt"]["healthcheck"]["test"]
    assert COMPOSE["services"]["ray-head"]["healthcheck"]["test"][-1] == f"--address=localhost:{head['port']}"


def test_addresses_of_kubernetes_name_what_is_there() -> None:
    container = OUR_PODS["Deployment headhunt"]["containers"][0]
    serve = parsed(container["command"])
    ports = {one["name"]: one["containerPort"] for one in OUR_PODS["kubernetes.yml: head"]["containers"][0]["ports"]}
    cluster = next(one for one in KUBERNETES if one["kind"] == "RayCluster")["metadata"]["name"]
    assert serve["ray"] == f"http://{cluster}-head-svc:{ports['dashboard']}"  # KubeRay's name of the head's service
    for storage in (serve["storage"], job_settings()["search.storage"]):
        database = kind(urlsplit(storage).hostname or "", "Service")
        assert urlsplit(storage).port == database["spec"]["ports"][0]["port"]
    for one in KUBERNETES:
        if one["kind"] == "Service":
            owner = next(
                other for other in KUBERNETES
                if other["kind"] in ("Deployment", "StatefulSet")
                and other["spec"]["template"]["metadata"]["labels"] == one["spec"]["selector"]
            )  # fmt: skip
            open_ports = {port["containerPort"] for port in owner["spec"]["template"]["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in one["spec"]["ports"]} == open_ports
            assert one["spec"].get("type", "ClusterIP") == "ClusterIP"
        if one["kind"] in ("Deployment", "StatefulSet"):
            assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]
    assert {port["containerPort"] for port in container["ports"]} == {serve["port"]}
    assert f"http://localhost:{serve['port']}/healthz" in container["readinessProbe"]["exec"]["command"]
    assert container["livenessProbe"]["tcpSocket"]["port"] == serve["port"]
    assert {cluster["headGroupSpec"]["serviceType"] for cluster in CLUSTERS.values()} == {"ClusterIP"}


def test_policies_are_for_pods_that_there_are() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"]
        for objects in OBJECTS.values() for one in objects if one["kind"] == "NetworkPolicy"
    }  # fmt: skip
    assert set(policies) == {"ray", "ray-run", "postgres"}
    for name, policy in policies.items():
        assert selected(policy["podSelector"]), name
        for rule in policy["ingress"]:
            for peer in rule["from"]:
                assert selected(peer["podSelector"]), f"{name}: {peer}"
    nodes = selected({"matchLabels": {"ray.io/is-ray-node": "yes"}})
    protected = [selected(policies[name]["podSelector"]) for name in ("ray", "ray-run")]
    assert all(protected)
    assert sorted(map(repr, nodes)) == sorted(repr(one) for some in protected for one in some)  # each by one of them
    service = next(one for one in KUBERNETES if (one["kind"], one["metadata"]["name"]) == ("Service", "headhunt"))
    assert selected({"matchLabels": service["spec"]["selector"]}) == [{"app": "headhunt"}]


def test_a_search_without_the_service_takes_no_gpu_beside_its_own() -> None:
    assert {one["kind"] for one in OBJECTS["storage.yml"]} == {
        "PersistentVolumeClaim", "Service", "StatefulSet", "NetworkPolicy",
    }  # fmt: skip
    assert "nvidia.com/gpu" not in json.dumps(OBJECTS["storage.yml"])
    apply, storage = "kubectl apply -n headhunt", "-f examples/cluster/storage.yml"
    lines = {
        "storage.yml": f"{apply} {storage}",
        "kubernetes.yml": f"{apply} {storage} -f examples/cluster/kubernetes.yml",
        "rayjob.yml": f"{apply} -f examples/cluster/rayjob.yml",
    }
    for file, line in lines.items():
        assert line in [one.partition(" #")[0].strip() for one in blocks()]
        assert f"#   {line}\n" in (HERE / file).read_text()


def test_the_page_names_what_the_autoscaler_needs_changed() -> None:
    cluster = CLUSTERS["kubernetes.yml"]
    assert cluster["enableInTreeAutoscaling"] is False
    assert cluster["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is False
    for name in ("enableInTreeAutoscaling", "automountServiceAccountToken", "replicas", "minReplicas"):
        assert f"`{name}`" in README


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


def test_memory_is_limited_and_shared_memory_holds_rays_objects() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
    for name in ("ray-head", "ray-worker"):
        size = int(COMPOSE["services"][name]["shm_size"].removesuffix("gb")) * 2**30
        assert parsed(COMPOSE["services"][name]["command"])["object_store_memory"] < size, name
    for name, container in containers():
        assert container["resources"]["limits"]["memory"], name
    for file, cluster in CLUSTERS.items():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            shm = next(one["emptyDir"] for one in group["template"]["spec"]["volumes"] if one["name"] == "shm")
            assert shm["medium"] == "Memory"
            size = int(shm["sizeLimit"].removesuffix("Gi")) * 2**30
            assert int(group["rayStartParams"]["object-store-memory"]) < size, file


def test_the_service_takes_the_search(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, storage=parsed(SERVES[0])["storage"])
    admitted = admit(parse(SEARCH.read_bytes(), is_json=False), settings)
    assert admitted.run.search.storage == settings.storage
    assert admitted.run.name in README


@pytest.mark.parametrize("file", CLUSTERS)
def test_every_stage_of_the_search_fits_the_cluster(file: str) -> None:
    run = load(Run, SEARCH)
    groups = CLUSTERS[file]["workerGroupSpecs"]
    limits = [
        (group["replicas"], group["template"]["spec"]["containers"][0]["resources"]["limits"]) for group in groups
    ]
    cpus, gpus = (sum(count * int(limit[key]) for count, limit in limits) for key in ("cpu", "nvidia.com/gpu"))
    assert gpus == 8
    for workers in (run.features.workers, run.search.workers, run.promotion_workers):
        assert workers.cpus is not None  # its default is a share of the head's
        assert workers.count * workers.gpus == gpus
        assert workers.count * workers.cpus <= cpus
        assert workers.gpus <= max(int(limit["nvidia.com/gpu"]) for _, limit in limits)
    assert run.search.generation >= run.search.workers.count * (run.search.lanes or 64)
    assert all(group["minReplicas"] == group["replicas"] == group["maxReplicas"] for group in groups)


def job_settings() -> dict[str, str]:
    """What the RayJob's command changes in the configuration."""
    return dict(one.split("=", 1) for one in parsed(shlex.split(RAY_JOB["spec"]["entrypoint"]))["set_"])


def test_the_ray_job_runs_the_same_search_in_the_work_directory() -> None:
    given = parsed(shlex.split(RAY_JOB["spec"]["entrypoint"]))
    assert given["config"] == Path(WORK) / SEARCH.name
    run = validate(Run, merged(SEARCH, given["set_"]), "the job's")
    assert run.workdir.is_relative_to(WORK)
    assert str(run.dataset.root) == f"{WORK}/{load(Run, SEARCH).dataset.root}"
    assert run.search.storage == parsed(SERVES[0])["storage"]


def test_what_the_page_names_exists() -> None:
    for link in re.findall(r"\]\(([\w.]+)\)", README):
        assert (HERE / link).exists(), link
    for path in re.findall(r"(?<![\w/])(examples/[\w./-]+)", README):
        assert (ROOT / path).exists() or path.startswith("examples/cluster/secrets/"), path
    for file in HERE.iterdir():
        if file.is_file() and file.suffix in (".yml", ".yaml", ".py"):
            assert f"]({file.name})" in README, file.name


def test_the_pages_numbers_are_those_of_the_configuration() -> None:
    run = load(Run, SEARCH)
    photos, training = 16185, 10520
    views = photos + run.features.copies * training
    assert README.count(f"{views:,}") == 3
    assert f"{views * 2048 * 2 * 1.02 / 1e9:.2f} GB" in README
    assert f"{run.search.trials:,} / (60 × *s*)" in README
    assert f"{run.train.top} / 8 × {run.train.finetune.epochs} × *p*" in README
    assert README.count(f"{run.features.images_per_shard} photos") == 2
    for workers in (run.features.workers, run.search.workers, run.promotion_workers):
        assert f"`{{count: {workers.count}, gpus: {workers.gpus:g}, cpus: {workers.cpus:g}}}`" in README
    assert f"`generation: {run.search.generation}`, `lanes: {run.search.lanes}`" in README


class _Service(BaseHTTPRequestHandler):
    """Answers as the service's /healthz does, with `status`."""

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
