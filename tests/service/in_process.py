"""The service in this process, behind its guard and on a real socket; only Ray is a fake."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import uvicorn
from pydantic import SecretStr

from headhunt.service.board.board import Board
from headhunt.service.http.guard import Application
from headhunt.service.http.serve import assemble, serving
from headhunt.service.jobs.jobs import Jobs
from headhunt.service.settings import Settings
from tests.service.serving import TOKEN
from tests.service.stand_in import StandIn

BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Served(NamedTuple):
    """A service reachable through `http`, which sends its token."""

    http: httpx.Client
    jobs: Jobs
    board: Board
    ray: StandIn
    settings: Settings
    app: Application
    others: list[httpx.Client]

    @property
    def root(self) -> Path:
        return self.settings.root

    def anonymous(self) -> httpx.Client:
        """The same client without the token and without cookies."""
        self.others.append(httpx.Client(base_url=self.http.base_url, verify=False))
        return self.others[-1]


@contextmanager
def served(root: Path, **given: Any) -> Iterator[Served]:
    """Serves this work directory; keywords are settings, by default with a token."""
    settings = Settings(root=root.resolve(), **{"token": SecretStr(TOKEN), **given})
    ray = StandIn()
    jobs, board, app = assemble(settings, ray, "1")
    board.look()
    options = serving(app, settings)
    options.timeout_graceful_shutdown = 1
    server = uvicorn.Server(options)
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
            for client in (http, *others):  # before the server stops, which would wait for them
                client.close()
            server.should_exit = True
            thread.join(10)
