"""The service in this process, on a real socket, with all that is real but Ray: what would be given to that is written down."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import uvicorn
from pydantic import SecretStr

from features.errors import LostError
from reports.service.app import application
from reports.service.board import Board
from reports.service.dashboard import dashboard
from reports.service.guard import Application
from reports.service.jobs import Jobs
from reports.service.raycluster import RayJobs
from reports.service.settings import Settings

TOKEN = "a-token-for-the-tests-alone"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class QuietRay:
    """Takes every job and begins none; `lost` does not answer."""

    address = "http://127.0.0.1:1"

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.submitted: list[str] = []
        self.lost = False

    def statuses(self) -> dict[str, str]:
        self._answer()
        return dict(self.known)

    def submit(self, ray_id: str, root: Path, folder: Path) -> None:
        self._answer()
        self.submitted.append(ray_id)
        self.known.setdefault(ray_id, "PENDING")

    def stop(self, ray_id: str) -> None:
        self._answer()
        self.known[ray_id] = "STOPPED"

    def _answer(self) -> None:
        if self.lost:
            raise LostError("Ray's job server does not answer")


class Served(NamedTuple):
    """A service that answers at `http`, which sends its token."""

    http: httpx.Client
    jobs: Jobs
    board: Board
    ray: QuietRay
    settings: Settings
    app: Application
    others: list[httpx.Client]

    @property
    def root(self) -> Path:
        return self.settings.root

    def anonymous(self) -> httpx.Client:
        """The same without the token, and without cookies."""
        self.others.append(httpx.Client(base_url=self.http.base_url, verify=False))
        return self.others[-1]


def jobs_of(root: Path, ray: QuietRay) -> Jobs:
    return Jobs(root, cast(RayJobs, ray))


@contextmanager
def served(root: Path, **given: Any) -> Iterator[Served]:
    """The service on this work directory; keywords are settings, by default with a token."""
    settings = Settings(root=root.resolve(), **{"token": SecretStr(TOKEN), **given})
    ray = QuietRay()
    jobs = jobs_of(settings.root, ray)
    board = Board(settings.root, jobs, settings.storage_url, "1")
    board.look()
    app = application(settings, jobs, board, dashboard(settings.root, settings.storage_url), "1")
    options = {"log_level": "warning", "access_log": False, "lifespan": "off", "ws": "none"}
    certificate = {"ssl_certfile": settings.certificate, "ssl_keyfile": settings.key}
    server = uvicorn.Server(uvicorn.Config(app, **options | certificate, timeout_graceful_shutdown=1))  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http{'s' if settings.certificate else ''}://127.0.0.1:{listening.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        headers = BEARER if settings.token else {}
        others: list[httpx.Client] = []
        http = httpx.Client(base_url=url, headers=headers, timeout=30, verify=False)
        try:
            yield Served(http, jobs, board, ray, settings, app, others)
        finally:
            for client in (http, *others):  # before the server ends: it would wait for them
                client.close()
            server.should_exit = True
            thread.join(10)


def eventually(wanted: Any, seconds: float = 10) -> None:
    """Waits until it is so."""
    until = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < until
        time.sleep(0.02)
