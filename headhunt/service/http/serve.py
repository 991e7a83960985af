"""`headhunt serve`: starts Ray if needed, and serves until it is stopped."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from features.runtime.atomic import make_folder, only_process
from features.runtime.errors import UsageError
from features.runtime.interrupts import raise_if_cancelled
from features.runtime.log import log, without_password
from headhunt.service.board.board import Board
from headhunt.service.http.dashboard import dashboard
from headhunt.service.http.guard import Application
from headhunt.service.jobs.jobs import Jobs
from headhunt.service.jobs.raycluster import OwnRay, RayJobs
from headhunt.service.settings import Settings, check
from search.driver.storage import open_storage

if TYPE_CHECKING:
    import uvicorn


class Parts(NamedTuple):
    """The application, and the jobs and board behind it."""

    jobs: Jobs
    board: Board
    app: Application


def serve(settings: Settings, ready: Callable[[dict[str, Any]], None]) -> None:
    """Serves until SIGINT or SIGTERM; `ready` gets the `--json` object (url, root, storage, ray) before the first request.

    Raises UsageError for settings that are unsafe or cannot work, LostError if Ray does not start.
    """
    import uvicorn

    check(settings)
    make_folder(settings.root)
    os.environ.pop("HEADHUNT_TOKEN", None)  # jobs would inherit it through a Ray that is started here
    with ExitStack() as stack:
        refusal = f"another service is using the work directory {settings.root}"
        stack.enter_context(only_process(settings.root / ".service.lock", refusal))
        listening = stack.enter_context(_listen(settings.host, settings.port))
        own = None
        if settings.ray is None:
            log.print("Starting Ray on this machine …")
            own = OwnRay(settings.root, settings.jobs)
            stack.callback(own.end)
            own.keep()
        ray = RayJobs(own.address if own else str(settings.ray), settings.root)
        parts = assemble(settings, ray, metadata.version("headhunt"), own.keep if own else None)
        parts.board.start()
        stack.callback(parts.board.end)
        url = settings.model_copy(update={"port": listening.getsockname()[1]}).url

        class Server(uvicorn.Server):
            """Reports that it is ready once it listens and handles signals, not before."""

            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                raise_if_cancelled()  # an earlier interrupt that Python dropped
                log.print(
                    f"Headhunt: {url} (press Ctrl-C to stop)\nStudies: {without_password(settings.storage_url)}",
                )
                ready({"url": url, "root": str(settings.root), "storage": settings.storage_url, "ray": ray.address})

        server = Server(serving(parts.app, settings))
        gc.collect()
        gc.freeze()  # permanent objects: later collections skip them, so that requests wait less
        server.run(sockets=[listening])


def serving(app: Application, settings: Settings) -> uvicorn.Config:
    """The uvicorn configuration."""
    import uvicorn

    from headhunt.service.http.protocol import limited

    return uvicorn.Config(
        app,
        http=limited(settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        proxy_headers=False,
        lifespan="off",
        ws="none",
    )


def assemble(settings: Settings, ray: RayJobs, version: str, keep_ray: Callable[[], None] | None = None) -> Parts:
    """Builds the service on its work directory and storage; the board's threads are not started yet."""
    from headhunt.service.http.app import application

    storage = open_storage(settings.storage_url, settings.root)
    jobs = Jobs(settings.root, ray)
    board = Board(settings.root, jobs, storage, version, keep_ray)
    shown = dashboard(settings.root, storage)
    return Parts(jobs, board, application(settings, jobs, board, shown, version))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)  # early requests wait until the server runs
    except OSError as error:
        listening.close()
        raise UsageError(
            f"port {port} on {host} cannot be used: {error.strerror}. Choose another with --port."
        ) from None
    return listening
