"""The four kinds of storage as tests start them: real servers, each empty, on free ports or sockets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = """
import sys, warnings
warnings.simplefilter("ignore")
import optuna
optuna.logging.set_verbosity(optuna.logging.WARNING)
optuna.storages.run_grpc_proxy_server(optuna.storages.RDBStorage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""

PASSWORD = "sesame"


def binaries() -> Path | None:
    """Where PostgreSQL's programs are: the newest of Debian's packages."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgresql() -> Iterator[str]:
    """A new PostgreSQL server that asks for a password; yields the URL of an empty database on it."""
    programs = binaries()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="headhunt-pg-"))  # a socket's path must be short
    (folder / "password").write_text(PASSWORD)
    as_user: list[str] = []
    if os.getuid() == 0:  # it refuses to run as root
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres", "postgres")
    options = [
        "--username=headhunt",
        f"--pwfile={folder / 'password'}",
        "--auth=scram-sha-256",
        "--no-sync",
        "--no-locale",
    ]
    initdb = [*as_user, programs / "initdb", "--pgdata", folder / "data", "--encoding=UTF8", *options]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder)
    port = free_port()
    settings = {"port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off"}
    chosen = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [*as_user, programs / "postgres", "-D", folder / "data", *chosen]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(port)
            yield f"postgresql://headhunt:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(2)  # SIGINT: its fast shutdown
            server.wait(20)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def proxy(behind: str) -> Iterator[str]:
    """Optuna's gRPC proxy in a process of its own, in front of the database at this URL; yields its address."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", SERVER, behind, str(port)]) as server:
        try:
            _wait_for(port)
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.kill()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.05)
