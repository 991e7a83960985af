"""The commands as processes: clients of a service with a fake Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.runtime.atomic import make_folder
from features.runtime.processes import this_process
from headhunt.service.jobs.records import Ended, Started, job_files, now
from tests.service.in_process import Served, served
from tests.service.serving import HEADHUNT, TOKEN
from tests.service.stand_in import eventually

SECONDS = 120
"""Timeout for a command to start or to end."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "headhunt.yaml").write_text(yaml.safe_dump({"name": "cars", "dataset": {"kind": "toy_cars"}}))
    with served(make_folder(tmp_path / "root")) as service:
        yield service


@contextmanager
def headhunt(service: Served, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running command."""
    environment = {**os.environ, "HEADHUNT_URL": str(service.http.base_url), "HEADHUNT_TOKEN": TOKEN}
    with subprocess.Popen(
        [HEADHUNT, *arguments],
        cwd=service.root.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def submitted(service: Served) -> None:
    raw = {"name": "cars", "dataset": {"kind": "toy_cars"}}
    assert service.http.post("/searches", json=raw).status_code == 201


def begin(service: Served) -> None:
    """Starts the search's job in the name of this process."""
    eventually(lambda: service.ray.submitted == ["cars-1.1"], SECONDS)
    files, me = job_files(service.root, "cars", 1), this_process()
    files.log.write_text("features prepare\n")
    files.begin(Started(host=me.host, pid=me.pid, place=me.place, birth=me.birth, ray_id="cars-1.1", time=now()))
    service.board.look()


def end(service: Served, state: str, message: str | None = None) -> None:
    files = job_files(service.root, "cars", 1)
    files.write_ended(Ended.model_validate({"state": state, "message": message, "time": now()}))
    service.board.look()


def state(service: Served) -> Any:
    return service.http.get("/searches/cars").json()["state"]


def interrupted(process: subprocess.Popen[str]) -> str:
    """Its output after Ctrl-C."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, said
    assert "Traceback" not in said and "Resume with" not in said
    return said


@pytest.mark.parametrize(
    ("state", "message", "status", "said"),
    [("finished", None, 0, ""), ("failed", "the disk is full", 1, "cars: failed. the disk is full")],
)
def test_a_search_is_followed_to_its_end(
    state: str, message: str | None, status: int, said: str, service: Served
) -> None:
    with headhunt(service, "submit", "--follow", "--json") as client:
        begin(service)
        end(service, state, message)
        result, log = client.communicate(timeout=SECONDS)
    assert client.returncode == status, log
    assert json.loads(result)["state"] == state
    assert "features prepare" in log and said in log and "Traceback" not in log


def test_who_stops_following_is_told_how_to_follow_again(service: Served) -> None:
    url = str(service.http.base_url)
    with headhunt(service, "submit", "--follow", "--url", url) as client:
        begin(service)
        assert client.stderr is not None
        assert any(line == "features prepare\n" for line in client.stderr)
        said = interrupted(client)
    assert (
        said
        == f"\nheadhunt: interrupted. cars keeps running at {url}. To follow it:\n  headhunt logs cars --follow --url {url}\n"
    )
    assert state(service) == "running"


def test_who_stops_reading_a_log_is_told_nothing(service: Served) -> None:
    submitted(service)
    begin(service)
    with headhunt(service, "logs", "cars", "--follow") as client:
        assert client.stdout is not None and client.stdout.readline() == "features prepare\n"
        assert interrupted(client) == "\nheadhunt: interrupted.\n"


def test_stop_then_resume(service: Served) -> None:
    submitted(service)
    begin(service)
    with headhunt(service, "stop", "cars") as client:
        assert client.stderr is not None
        assert client.stderr.readline() == "cars is saving its state …\n"
        assert state(service) == "stopping" and client.poll() is None
        end(service, "stopped", "stopped as requested; it can be resumed")
        said, _ = client.communicate(timeout=SECONDS)
    assert client.returncode == 0
    assert said == "cars is stopped. To resume it: headhunt submit --resume cars\n"
    with headhunt(service, "submit", "--resume", "cars") as client:
        said, log = client.communicate(timeout=SECONDS)
    assert client.returncode == 0, log
    assert said.startswith("cars is queued.")


def test_who_does_not_wait_for_a_stop_is_told_that_it_goes_on(service: Served) -> None:
    submitted(service)
    begin(service)
    with headhunt(service, "stop", "cars", "--json") as client:
        assert client.stderr is not None
        assert client.stderr.readline() == "cars is saving its state …\n"
        client.send_signal(signal.SIGINT)
        told, said = client.communicate(timeout=SECONDS)
    assert client.returncode == 130
    assert said.endswith("\nheadhunt: interrupted. cars is still stopping. To check on it:\n  headhunt jobs cars\n")
    assert json.loads(told)["state"] == "stopping"
