"""Ray's nodes, the service and the network between them in examples/cluster are consistent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headhunt.service.jobs.raycluster import QUEUE_SECONDS, SLOT, STOP_SECONDS
from tests.contracts.cluster_files import (
    CLUSTERS,
    COMPOSE,
    DOCKERFILE,
    HERE,
    KUBERNETES,
    LINES,
    OBJECTS,
    OUR_PODS,
    OURS,
    RAY_JOB,
    RAY_UP,
    README,
    WORK,
    blocks,
    containers,
    job_settings,
    kind,
    parsed,
)


def labels() -> list[dict[str, str]]:
    """The labels of all possible pods: those of the Kubernetes files with KubeRay's additions, and KubeRay itself."""
    found = []
    for one in KUBERNETES:
        if one["kind"] in ("Deployment", "StatefulSet"):
            found.append(one["spec"]["template"]["metadata"]["labels"])
    names = {"kubernetes.yml": "headhunt", "rayjob.yml": "stanford-cars-8-gpus-x7x7x"}
    for file, cluster in CLUSTERS.items():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            given = group["template"].get("metadata", {}).get("labels", {})
            found.append({"ray.io/cluster": names[file], "ray.io/is-ray-node": "yes", **given})
    found.append({"batch.kubernetes.io/job-name": RAY_JOB["metadata"]["name"]})  # passes in the entrypoint
    found.append({"app.kubernetes.io/component": "kuberay-operator"})
    return found


def selected(selector: dict[str, Any]) -> list[dict[str, str]]:
    """The pods that match a policy's selector."""
    wanted = selector.get("matchLabels", {}).items()
    keys = {one["key"] for one in selector.get("matchExpressions", ()) if one["operator"] == "Exists"}
    return [one for one in labels() if wanted <= one.items() and keys <= one.keys()]


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
