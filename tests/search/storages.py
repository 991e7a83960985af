"""Starts the four kinds of storage for tests: real, empty servers on free ports or sockets."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kills import descendants

SERVER = """
import sys, warnings
warnings.simplefilter("ignore")
import optuna
optuna.logging.set_verbosity(optuna.logging.WARNING)
optuna.storages.run_grpc_proxy_server(optuna.storages.RDBStorage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""

PASSWORD = "sesame"


def binaries() -> Path | None:
    """The folder of PostgreSQL's programs: the newest of Debian's packages."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


class PostgreSQL:
    """A server that requires a password, with an empty database. `kill` ends it like a power cut, `start` restarts it."""

    def __init__(self, folder: Path) -> None:
        programs = binaries()
        assert programs is not None
        self._folder, self._programs, self.port = folder, programs, 0
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
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": folder}
        chosen = [part for name, value in {**settings, "fsync": "off"}.items() for part in ("-c", f"{name}={value}")]
        self._command = [*as_user, programs / "postgres", "-D", folder / "data", *chosen]
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://headhunt:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self.port = self.port or free_port()
        command = [*self._command, "-c", f"port={self.port}"]
        self._server = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ready = [self._programs / "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={self.port}"]
        until = time.monotonic() + 120
        while subprocess.run(ready, check=False).returncode != 0:  # the port answers before the server is ready
            assert self._server.poll() is None and time.monotonic() < until, "the server did not start"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        for number in [self._server.pid, *(number for number, _ in descendants(self._server.pid))]:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self._server.wait()

    def end(self) -> None:
        self._server.send_signal(signal.SIGINT)  # its fast shutdown
        self._server.wait(20)


@contextmanager
def postgresql_server() -> Iterator[PostgreSQL]:
    """A new PostgreSQL server."""
    folder = Path(tempfile.mkdtemp(prefix="headhunt-pg-"))  # a socket's path must be short
    try:
        server = PostgreSQL(folder)
        try:
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database on a new PostgreSQL server."""
    with postgresql_server() as server:
        yield server.url


@contextmanager
def proxy(behind: str) -> Iterator[str]:
    """Optuna's gRPC proxy in a separate process, in front of the database at this URL; yields its address."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", SERVER, behind, str(port)]) as server:
        try:
            _wait_for(port)
            yield f"grpc://127.0.0.1:{port}"
        finally:
            server.kill()


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.05)
