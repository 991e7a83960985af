"""`headhunt serve`: starts what the service stands on, and serves until it is told to stop."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from importlib import metadata
from typing import Any

from features.atomic import make_folder, only_process
from features.command import log, without_password
from features.errors import UsageError
from reports.service.board import Board
from reports.service.dashboard import dashboard
from reports.service.jobs import Jobs
from reports.service.raycluster import OwnRay, RayJobs
from reports.service.settings import Settings, check


def serve(settings: Settings, ready: Callable[[dict[str, Any]], None]) -> None:
    """Serves until SIGINT or SIGTERM; `ready` gets what it serves, and where, before the first request.

    Raises UsageError for settings that are not safe or cannot work, LostError when Ray does not start.
    """
    import uvicorn

    from reports.service.app import application

    check(settings)
    make_folder(settings.root)
    os.environ.pop("HEADHUNT_TOKEN", None)  # jobs inherit the environment of a Ray that is started here
    with ExitStack() as stack:
        refusal = f"another service has the work directory {settings.root}"
        stack.enter_context(only_process(settings.root / ".service.lock", refusal))
        listening = stack.enter_context(_listen(settings.host, settings.port))
        own = None
        if settings.ray is None:
            log.print("Starting Ray on this machine …")
            own = OwnRay(settings.root, settings.jobs)
            stack.callback(own.end)
            own.keep()
        jobs = Jobs(settings.root, RayJobs(own.address if own else str(settings.ray)))
        version = metadata.version("headhunt")
        board = Board(settings.root, jobs, settings.storage_url, version, own.keep if own else None)
        optuna_dashboard = dashboard(settings.root, settings.storage_url)
        board.start()
        stack.callback(board.end)
        app = application(settings, jobs, board, optuna_dashboard, version)
        port = listening.getsockname()[1]
        url = settings.model_copy(update={"port": port}).url
        log.print(f"Headhunt: {url} (Ctrl-C stops it)\nStudies: {without_password(settings.storage_url)}", markup=False)
        ready({"url": url, "root": str(settings.root), "storage": settings.storage_url, "ray": jobs.ray_address})
        server = uvicorn.Server(
            uvicorn.Config(
                app,
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
        )
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)  # who asks before the server runs waits for it
    except OSError as error:
        listening.close()
        raise UsageError(
            f"port {port} on {host} cannot be used: {error.strerror}. Choose another one with --port."
        ) from None
    return listening
