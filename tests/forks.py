"""Python processes with their imports already done: for each Keras backend, a server that has imported what commands need, and
forks for each call.

Importing Keras and its backend takes three to six processor seconds, a fork 0.05. A fork is a process of its own: its folder,
environment, signals, imports and end touch no other. `tests.conftest.run_headhunt` and tests of what a process does use it. Keras
must not have computed anything before the fork, since threads of a backend do not survive it; the servers only import.

The server reads {code or arguments, folder, environment, files} and answers the process id of the fork, then its status.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import types
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

HEADHUNT = str(Path(sys.executable).with_name("headhunt"))
Backend = Literal["jax", "tensorflow"]

STORAGE = ("optuna.artifacts", "alembic.command", "sqlalchemy.dialects.sqlite")
IMPORTS = {
    "jax": (
        *("keras", "search.study", "search.confirm.rerun", "search.population.program", *STORAGE),
        *("matplotlib.figure", "matplotlib.backends.backend_agg", "scipy.optimize", "scipy.stats"),
    ),
    "tensorflow": (
        *("keras", "features.building.build", "train.promotion.promote", "train.exports.export", *STORAGE),
        *("sklearn.linear_model", "plotly.io", "plotly.express"),
    ),
}
AT_IMPORT = {"jax": {"JAX_PLATFORMS": "cpu", "JAX_THREEFRY_PARTITIONABLE": "1"}, "tensorflow": {}}
"""Variables that a backend reads when it is imported, as `search.engine.environment` sets them."""

AT_FIRST = dict(os.environ)
"""The variables of the servers: those of this process, before a test changes one."""

READ_AT_IMPORT = ("JAX_", "KERAS_HOME", "PYTHONPATH", "XLA_")
"""Beginnings of names of variables that change what an import does: a call that sets one gets a process of its own."""


def run_python(
    code: str,
    *arguments: str,
    backend: Backend = "jax",
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """The result of `python -c CODE ARGUMENTS` in a folder, with Keras on `backend` and with additional variables."""
    variables = {**AT_IMPORT[backend], "KERAS_BACKEND": backend, **(environment or {})}
    return _call(backend, [sys.executable, "-c", code, *arguments], folder or Path.cwd(), variables)


def run_command(
    folder: Path, arguments: Sequence[str], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The result of `headhunt ARGUMENTS` in a folder, with additional variables."""
    backend: Backend = "jax" if arguments[0] == "search" else "tensorflow"
    return _call(backend, [HEADHUNT, *arguments], folder, environment or {})


def _call(
    backend: Backend, command: list[str], folder: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"} | variables
    base = {**AT_FIRST, **AT_IMPORT[backend]}
    if any(base.get(name) != environment[name] for name in environment if name.startswith(READ_AT_IMPORT)):
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    server, child = _server(backend), None
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryFile("w+") as said:
        try:
            request = {"command": command, "folder": str(folder.resolve()), "environment": environment}
            socket.send_fds(server, [json.dumps(request).encode()], [printed.fileno(), said.fileno()])
            child = json.loads(server.recv(100))
            status = json.loads(server.recv(100))
        except BaseException:  # also a test that timed out: the answer to its call must not become that of the next one
            _server.cache_clear()
            server.close()
            if child is not None:
                os.kill(child, signal.SIGKILL)
            raise
        texts = [(file.seek(0), file.read())[1] for file in (printed, said)]
    return subprocess.CompletedProcess(command, status, *texts)


@lru_cache(maxsize=2)
def _server(backend: Backend) -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, backend, str(its.fileno())],
            env={**AT_FIRST, **AT_IMPORT[backend], "KERAS_BACKEND": backend},
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
        )
    atexit.register(server.kill)
    return ours


def _serve(backend: Backend, connection: socket.socket) -> None:
    """Forks for each call until the other end of the connection closes. In a fork, returns the call's end."""
    import importlib

    from features.runtime.workers.engine import quiet

    with quiet():
        for name in ("headhunt.cli", "keras", *IMPORTS[backend]):
            importlib.import_module(name)
    gc.freeze()
    while True:
        message, files, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        if not message:
            return None
        request = json.loads(message)
        if (child := os.fork()) == 0:
            connection.close()
            for file, standard in zip(files, (1, 2), strict=True):
                os.dup2(file, standard)
                os.close(file)
            return _run(**request)
        for file in files:
            os.close(file)
        connection.send(json.dumps(child).encode())
        connection.send(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


def _run(command: list[str], folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    program, *arguments = command
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if program == HEADHUNT:
        sys.argv = command
        from headhunt.cli import main as headhunt

        headhunt()
    else:
        _, code, *sys.argv[1:] = arguments
        sys.argv[0] = "-c"
        sys.path.insert(0, "")
        exec(compile(code, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
