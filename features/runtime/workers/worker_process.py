"""A worker process on this machine, which runs one task at a time, and the driver's side of it.

It is started with its own command, not by `multiprocessing`, which would rerun the user's main script in every worker. Tasks
and results go through a pipe. The worker's output goes to an unnamed temporary file, whose last line tells why it died.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from features.runtime.commands.stages import end_with_parent

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from features.runtime.workers.worker_process import serve; serve(int(sys.argv[1]), int(sys.argv[3]))"
)

LONGEST_WORD = 300
"""Most characters of a worker's last line that a message quotes."""


class DeadWorkerError(Exception):
    """The worker process died during a task; the message says how."""

    @property
    def repeated(self) -> str:
        """The message when one worker after the other died this way."""
        if "SIGKILL" in str(self):
            return f"a worker was killed repeatedly, probably out of memory ({self})"
        return f"a worker died repeatedly ({self})"


class WorkerError(Exception):
    """Traceback from the worker, attached as the cause of the exception raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class WorkerProcess:
    """The driver's side. `environment` is set before the worker's first import; the worker runs in `folder`.

    Ctrl-C does not reach the worker; the driver kills it. When the driver ends, the worker is killed on Linux; elsewhere it exits
    after its task.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self._output = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed with the worker
        with theirs:
            arguments = [str(theirs.fileno()), json.dumps(sys.path), str(os.getpid())]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, *arguments], env={**os.environ, **environment}, cwd=folder,
                pass_fds=[theirs.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output,
            )  # fmt: skip

    def give(self, function: Callable[[Any], Any], task: Any) -> None:
        """Sends it a task. Raises DeadWorkerError when it has died."""
        try:
            self.connection.send_bytes(ForkingPickler.dumps((function, task)))
        except OSError as error:
            raise self._death() from error

    def result(self) -> Any:
        """The result of its task, once `connection` is ready; an exception of the task is raised unchanged.

        Raises DeadWorkerError when the worker has died.
        """
        try:
            succeeded, value = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        if succeeded:
            return value
        fault, where = value
        raise fault from WorkerError(where)

    def end(self) -> None:
        """Kills it at once."""
        self.connection.close()
        self._process.kill()
        self._process.wait()
        self._output.close()

    def _death(self) -> DeadWorkerError:
        status = self._process.wait()
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        return DeadWorkerError(f"{how}; its last output: {lines[-1].strip()[:LONGEST_WORD]}" if lines else how)


def serve(descriptor: int, driver: int) -> None:
    """The worker's side: runs tasks from the pipe until the driver (process ID `driver`) closes it."""
    if sys.platform == "linux":
        end_with_parent()  # not as preexec_fn in the driver, where JAX would warn about the fork
        if os.getppid() != driver:
            return
    connection = Connection(descriptor)
    while True:
        try:
            given = connection.recv_bytes()
        except EOFError:
            return
        try:
            function, task = pickle.loads(given)
            answer = ForkingPickler.dumps((True, function(task)))
        except Exception as error:
            answer = _failure(error, traceback.format_exc())
        connection.send_bytes(answer)


def _failure(error: Exception, where: str) -> Any:
    try:
        answer = ForkingPickler.dumps((False, (error, where)))
        pickle.loads(answer)  # fails for an exception whose `args` do not match its constructor
    except Exception:
        return ForkingPickler.dumps((False, (RuntimeError(f"{type(error).__name__}: {error}"), where)))
    return answer
