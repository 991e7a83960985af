"""The service's use of Ray's job server: which jobs belong to whom, and a server that gives no answer or an unexpected one."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from features.runtime.errors import LostError
from headhunt.service.jobs import raycluster
from headhunt.service.jobs.raycluster import OwnRay, RayJobs


class Listing:
    """A client that knows these jobs."""

    def __init__(self, **statuses: str) -> None:
        self._statuses = statuses

    def list_jobs(self) -> list[Any]:
        named = [
            SimpleNamespace(submission_id=name, status=SimpleNamespace(value=status))
            for name, status in self._statuses.items()
        ]
        return [*named, SimpleNamespace(submission_id=None, status=SimpleNamespace(value="RUNNING"))]


def test_a_search_of_the_same_name_below_another_root_is_another_job() -> None:
    ours, theirs = (RayJobs("http://ray.invalid:8265", Path(root)) for root in ("/ours", "/theirs"))
    known = {theirs.submission_id("cars-1.1"): "RUNNING", ours.submission_id("cars-2.1"): "FAILED", "alien": "PENDING"}
    ours._client = theirs._client = Listing(**known)
    assert ours.statuses() == {"cars-2.1": "FAILED"}
    assert theirs.statuses() == {"cars-1.1": "RUNNING"}
    assert RayJobs("http://elsewhere.invalid", Path("/ours")).submission_id("cars-1.1") == ours.submission_id(
        "cars-1.1"
    )


@contextmanager
def answering(status: int, body: Any) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_job_server_that_refuses_is_one_that_does_not_answer(status: int, tmp_path: Path) -> None:
    with answering(status, {"error": "no"}) as url:
        jobs = RayJobs(url, tmp_path)
        for ask in (jobs.statuses, lambda: jobs.stop("cars-1.1"), lambda: jobs.submit("cars-1.1", tmp_path)):
            with pytest.raises(LostError, match=f"Ray's job server at {url} does not answer: "):
                ask()


def test_a_job_server_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raycluster, "ANSWER_SECONDS", (5, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        jobs = RayJobs(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        with pytest.raises(LostError, match=r"does not answer: .*timed? ?out"):
            jobs.statuses()


HEADS = """#!/bin/sh
echo "$@" >> {folder}/started
if [ $(wc -l < {folder}/started) -le {failing} ]; then
  echo "{said}"
  exit 1
fi
touch {folder}/up
exec sleep 600
"""


def own_ray(folder: Path, monkeypatch: pytest.MonkeyPatch, failing: int, said: str) -> OwnRay:
    """A private Ray whose first heads exit with these messages; the next one answers."""
    program = folder / "python"
    program.write_text(HEADS.format(folder=folder, failing=failing, said=said))
    program.chmod(0o755)

    def statuses(jobs: RayJobs) -> dict[str, str]:
        if (folder / "up").exists():
            return {}
        raise LostError("Ray's job server does not answer")

    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(RayJobs, "statuses", statuses)
    return OwnRay(folder, 1)


def test_a_head_that_did_not_come_up_in_time_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine under load: Ray waits half a minute for its node."""
    own = own_ray(tmp_path, monkeypatch, 2, "Exception: The current node timed out during startup. This could")
    try:
        own.keep()
        assert len((tmp_path / "started").read_text().splitlines()) == 3
    finally:
        own.end()


def test_a_head_that_cannot_start_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = own_ray(tmp_path, monkeypatch, 2, "OSError: No space left on device")
    try:
        with pytest.raises(LostError, match=r"Ray did not start: OSError: No space left on device"):
            own.keep()
        assert len((tmp_path / "started").read_text().splitlines()) == 1
    finally:
        own.end()
