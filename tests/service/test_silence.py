"""A storage that stops answering, like one whose machine or network is gone: PostgreSQL, stopped by SIGSTOP."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from features.runtime.errors import LostError
from features.runtime.processes import this_process
from headhunt.service.jobs.records import Ended, Files, Started, job_files, now
from search.driver.storage import open_storage
from tests.kills import descendants
from tests.search.storages import PostgreSQL, binaries, postgresql_server
from tests.service.in_process import Served, served
from tests.service.serving import configuration
from tests.service.stand_in import eventually, searched_trial

pytestmark = pytest.mark.skipif(binaries() is None, reason="needs PostgreSQL's server, e.g. Debian's package")

UNANSWERED = 5
"""Seconds without an answer after which something is considered unreachable here."""

SOON = 10
"""Seconds in which a request is answered on a busy machine; a request that waited for the storage would never be."""


def send(database: PostgreSQL, number: signal.Signals) -> None:
    """Sends a signal to all processes of the server; a connection's process may end by itself meanwhile."""
    server = database._server.pid
    for process in (server, *(process for process, _ in descendants(server))):
        with suppress(ProcessLookupError):
            os.kill(process, number)


@pytest.fixture
def database() -> Iterator[PostgreSQL]:
    with postgresql_server() as database:
        yield database
        send(database, signal.SIGCONT)


@pytest.fixture
def service(tmp_path: Path, database: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("headhunt.service.board.board.UNANSWERED_SECONDS", UNANSWERED)
    monkeypatch.setattr("headhunt.service.board.board.PATIENCE_SECONDS", 1)
    root = tmp_path / "root"
    (root / "photos").mkdir(parents=True)
    (root / "tiny.keras").write_bytes(b"")
    with served(root, storage=database.url) as service:
        service.board.start()
        yield service
        send(database, signal.SIGCONT)
        service.board.end()


def submit(service: Served, name: str) -> None:
    raw = yaml.safe_dump(configuration(name))
    answer = service.http.post("/searches", content=raw, headers={"Content-Type": "application/yaml"})
    assert answer.status_code == 201, answer.text


def begin(files: Files) -> None:
    """Starts a job in the name of this process."""
    me = this_process()
    ray_id = files.job().ray_id
    assert files.begin(Started(host=me.host, pid=me.pid, place=me.place, birth=me.birth, ray_id=ray_id, time=now()))
    files.write_stage("search")


def told(service: Served, path: str, method: str = "GET") -> Any:
    began = time.monotonic()
    answer = service.http.request(method, path)
    assert time.monotonic() - began < SOON
    assert answer.is_success, answer.text
    return answer.json()


def health(service: Served) -> tuple[str, str]:
    found = service.http.get("/healthz").json()
    return found["ray"], found["storage"]


def test_a_silent_storage_holds_up_no_request_and_is_not_taken_for_ray(service: Served, database: PostgreSQL) -> None:
    for name in ("cars", "boats"):
        submit(service, name)
    cars = job_files(service.root, "cars", 1)
    begin(cars)
    study = optuna.create_study(storage=open_storage(database.url, service.root), study_name="cars")
    study.add_trials([searched_trial(value) for value in (0.5, 0.25)])
    eventually(lambda: bool(told(service, "/searches/cars")["trials"]["complete"] == 2), 60)
    assert health(service) == ("ok", "ok")

    send(database, signal.SIGSTOP)
    until = time.monotonic() + 1.6 * UNANSWERED
    while time.monotonic() < until:  # before it is detected, and after
        states = {search["name"]: search["state"] for search in told(service, "/searches")["searches"]}
        assert states["cars"] == "running"
        assert told(service, "/searches/boats/stop", "POST")["state"] == "stopped"
        assert service.jobs.ray_answered is not None
        assert health(service)[0] == "ok"
        time.sleep(0.2)
    eventually(lambda: health(service) == ("ok", "unreachable"), 60)
    assert service.http.get("/healthz").status_code == 503
    submit(service, "planes")
    begin(job_files(service.root, "planes", 1))
    eventually(lambda: bool(told(service, "/searches/planes")["state"] == "running"), 60)
    assert service.board.incomplete("cars", [0, 1]) == []
    began = time.monotonic()
    with pytest.raises(LostError, match="cannot tell whether trials 2, 7 of the search 'cars' are complete"):
        service.board.incomplete("cars", [1, 7, 2])
    assert time.monotonic() - began < SOON
    cars.write_ended(Ended(state="stopped", message="it was asked to", time=now()))
    eventually(lambda: bool(told(service, "/searches/cars")["state"] == "stopped"), 60)
    assert told(service, "/searches/cars")["trials"]["complete"] == 2  # the last known state

    send(database, signal.SIGCONT)
    eventually(lambda: health(service) == ("ok", "ok"), 60)
    study.add_trial(searched_trial(0.75))
    assert told(service, "/searches/cars/resume", "POST")["state"] == "queued"
    begin(job_files(service.root, "cars", 2))
    eventually(lambda: bool(told(service, "/searches/cars")["trials"]["complete"] == 3), 60)
    assert service.board.incomplete("cars", [1, 2, 7]) == [7]
    assert told(service, "/searches/cars")["state"] == "running"


def test_who_asks_for_trials_before_silence_is_found_out_is_told_so(service: Served, database: PostgreSQL) -> None:
    submit(service, "cars")
    send(database, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(LostError, match="the storage does not answer"):
        service.board.incomplete("cars", [0])
    assert time.monotonic() - began < SOON
