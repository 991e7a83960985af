"""Service, Ray's head and PostgreSQL are killed with -9 during a search: all state is recovered, and nothing runs twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from search.driver.storage import open_storage
from tests.conftest import run_headhunt
from tests.kills import descendants
from tests.nodes import ray_nodes
from tests.search.storages import PASSWORD, binaries, postgresql_server
from tests.service.serving import OVER, Service, configuration, work_directory
from tests.service.stand_in import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

LONG: dict[str, Any] = {
    "trials": 120,
    "generation": 4,
    "epochs": 9,
    "pruner": "hyperband",
    "space": {"schedule": {"learning_rate": {"low": 1e-4, "high": 1.0, "log": True}}, "batch_size": 4},
}

ON_RAY: dict[str, Any] = {"workers": {"executor": "ray", "count": 1, "cpus": 1}}
"""Trials as tasks on the Ray that runs the job, which end with it."""


@contextmanager
def served(root: Path, *options: str, **variables: str) -> Iterator[Service]:
    service = Service(root, *options, variables=variables).start()
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.kill()


def trials(storage: str, name: str) -> list[Any]:
    """The parts of a study that must be the same however often it was interrupted."""
    found = optuna.load_study(study_name=name, storage=open_storage(storage, Path())).trials
    assert [trial.number for trial in found] == list(range(len(found)))
    return [(trial.state.name, trial.value, trial.params, trial.intermediate_values) for trial in found]


def ended(storage: str, name: str) -> dict[int, Any]:
    """When each ended trial ended: another time would mean another training."""
    found = optuna.load_study(study_name=name, storage=open_storage(storage, Path())).get_trials(deepcopy=False)
    return {trial.number: (trial._trial_id, trial.datetime_complete) for trial in found if trial.state.is_finished()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, photos: Path) -> list[Any]:
    """The trials of the search without kills and without a service."""
    root = work_directory(tmp_path_factory.mktemp("calm"), tiny_backbone, photos)
    (root / "headhunt.yaml").write_text(yaml.safe_dump({**configuration("first", **LONG), "workdir": "calm"}))
    for stage in (("features", "prepare"), ("features", "cache"), ("search", "run")):
        run_headhunt(root, *stage)
    found = trials(f"sqlite:///{root}/calm/study.db", "first")
    assert {state for state, *_ in found} == {"COMPLETE", "PRUNED"}
    return found


@pytest.fixture
def root(tmp_path: Path, tiny_backbone: Path, photos: Path) -> Path:
    return work_directory(tmp_path, tiny_backbone, photos)


def kill_everything_of(service: Service) -> None:
    """Also kills its Ray and its jobs, like a machine that goes down."""
    processes = [service.process.pid, *(number for number, _ in descendants(service.process.pid))]
    for wanted in (signal.SIGSTOP, signal.SIGKILL):
        for number in processes:
            try:
                os.kill(number, wanted)
            except ProcessLookupError:
                continue
    service.kill()


@pytest.mark.parametrize("killed", ["the service", "the machine", "Ray's head", "Ray's head, with trials on Ray"])
def test_a_search_and_the_one_that_waits_for_it(root: Path, undisturbed: list[Any], killed: str) -> None:
    storage = f"sqlite:///{root}/headhunt.db"
    first = configuration("first", **LONG, **(ON_RAY if "trials on Ray" in killed else {}))
    with served(root) as service:
        assert service.submit(first, **{"Idempotency-Key": "first"}).status_code == 201
        assert service.submit(configuration("second")).status_code == 201
        found = service.wait("first", lambda found: found["trials"]["complete"] > 8)
        assert service.get("/searches/second")["state"] == "queued"
        before = ended(storage, "first")
        if killed.startswith("Ray's head"):
            (head,) = [number for number, line in descendants(service.process.pid) if "gcs_server" in line.split()[0]]
            os.kill(head, signal.SIGKILL)
        else:
            kill_everything_of(service) if killed == "the machine" else service.kill()
            service.start()
        found = service.wait("first", lambda found: found["state"] in OVER)
        assert found["state"] == "interrupted", service.said
        assert found["message"] == "its process was killed; finished work is saved and the job can be resumed"
        assert found["trials"]["complete"] >= len([1 for _ in before]) - found["trials"]["pruned"]
        # The repeated request returns the job that it created, and starts nothing.
        again = service.submit(first, **{"Idempotency-Key": "first"})
        assert (again.status_code, len(again.json()["jobs"])) == (201, 1)
        assert service.over("second")["state"] == "finished", service.log_of("second")
        assert len(service.get("/searches/second")["jobs"]) == 1
        assert service.http.post("/searches/first/resume").status_code == 202
        assert service.over("first")["state"] == "finished", service.log_of("first")
        assert trials(storage, "first") == undisturbed
        after = ended(storage, "first")
        assert {number: after[number] for number in before} == before
        assert service.get("/searches/second")["best"]["value"] is not None
        assert service.get("/healthz")["status"] == "ok"


def test_a_search_on_another_ray_goes_on_without_the_service(root: Path, undisturbed: list[Any]) -> None:
    storage = f"sqlite:///{root}/headhunt.db"
    with ray_nodes(workers=0, head_cpus=2, dashboard=True, more=('--resources={"headhunt_jobs": 1}',)) as nodes:
        with served(root, "--ray", nodes.dashboard, RAY_AUTH_MODE="disabled") as service:
            assert service.submit(configuration("first", **LONG)).status_code == 201
            service.wait("first", lambda found: found["trials"]["complete"] > 4)
            service.kill()
            service.start()
            found = service.get("/searches/first")
            assert found["state"] in ("running", "finished")
            assert service.over("first")["state"] == "finished", service.log_of("first")
            assert len(service.get("/searches/first")["jobs"]) == 1
        assert trials(storage, "first") == undisturbed


def test_the_head_of_a_cluster_is_lost_with_its_job_and_comes_back(root: Path, undisturbed: list[Any]) -> None:
    storage = f"sqlite:///{root}/headhunt.db"
    slot = '--resources={"headhunt_jobs": 1}'
    with (
        ray_nodes(workers=1, dashboard=True, more=(slot,)) as nodes,
        served(root, "--ray", nodes.dashboard, RAY_AUTH_MODE="disabled") as service,
    ):
        assert service.submit(configuration("first", **LONG, **ON_RAY)).status_code == 201
        service.wait("first", lambda found: found["trials"]["complete"] > 8)
        before = ended(storage, "first")
        nodes.head.lose()
        assert service.over("first")["state"] == "interrupted", service.said
        eventually(lambda: service.http.get("/healthz").status_code == 503, 60)
        nodes.start_again(workers=1)
        eventually(lambda: service.http.get("/healthz").status_code == 200, 60)
        assert service.http.post("/searches/first/resume").status_code == 202
        assert service.over("first")["state"] == "finished", service.log_of("first")
        assert trials(storage, "first") == undisturbed
        after = ended(storage, "first")
        assert {number: after[number] for number in before} == before


@pytest.mark.skipif(binaries() is None, reason="needs PostgreSQL's server, e.g. Debian's package")
def test_postgresql_is_killed_during_a_search(root: Path, undisturbed: list[Any]) -> None:
    with postgresql_server() as database:
        url = database.url.replace(f":{PASSWORD}@", "@")
        with served(root, "--storage", url, PGPASSWORD=PASSWORD) as service:
            assert service.submit(configuration("first", **LONG)).status_code == 201
            service.wait("first", lambda found: found["trials"]["complete"] > 8)
            before = ended(database.url, "first")
            database.kill()
            found = service.wait("first", lambda found: found["state"] in OVER)
            health = service.http.get("/healthz")
            assert (health.status_code, health.json()["storage"]) == (503, "unreachable")
            assert found["state"] == "failed" and found["message"].endswith("What was written is safe."), found
            assert found["trials"]["complete"] > 8  # the last known state is still shown
            answered = service.submit(configuration("second"))
            assert answered.status_code in (201, 503)
            database.start()
            eventually(lambda: service.http.get("/healthz").status_code == 200, 90)
            if answered.status_code == 503:
                assert service.http.get("/searches/second").status_code == 404
            else:  # it began before PostgreSQL was back, or after that
                second = service.wait("second", lambda found: found["state"] in OVER)
                if second["state"] == "failed":
                    assert "storage" in second["message"], second
                    assert service.http.post("/searches/second/resume").status_code == 202
                    second = service.over("second")
                assert second["state"] == "finished", service.log_of("second")
                complete = [value for state, value, *_ in trials(database.url, "second") if state == "COMPLETE"]
                assert (second["trials"]["complete"], second["best"]["value"]) == (len(complete), max(complete))
            assert service.http.post("/searches/first/resume").status_code == 202
            assert service.over("first")["state"] == "finished", service.log_of("first")
            assert trials(database.url, "first") == undisturbed
            after = ended(database.url, "first")
            assert {number: after[number] for number in before} == before
            said = [path for path in root.rglob("*") if path.is_file() and path.suffix in (".json", ".txt", ".yaml")]
            assert said and all(PASSWORD not in path.read_text() for path in said)
