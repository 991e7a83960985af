"""Runs tasks on Ray workers, on this machine or a cluster, and starts Ray on this machine."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from features.runtime.errors import DeadWorkersError, HeadhuntError, LostError, UsageError
from features.runtime.interrupts import raise_if_cancelled
from features.runtime.log import log
from features.runtime.workers.cluster import Cluster, shorten_ray
from features.runtime.workers.config import Workers
from features.runtime.workers.ray_internals import kill_half_started

T = TypeVar("T")
R = TypeVar("R")

LOOK_SECONDS = 2.0
"""Seconds between a waiting driver's checks that the cluster is still alive."""

ATTEMPTS = 3
"""Number of attempts to start Ray on this machine."""

WITHOUT_RAY = "Or run without Ray: `workers.executor: auto` or `local`."

LEAST_BYTES = 10_000_000
"""Free disk space that Ray needs to start."""

LONGEST = 300
"""Most characters of a Ray error that a message quotes."""


class RayExecutor:
    """Runs tasks on Ray workers, at most `workers.count` at a time; a task whose worker dies is retried up to `retries` times.

    Tasks lost with their node are retried without limit: a long run on preemptible machines loses many.
    """

    def __init__(self, workers: Workers, cpus: float, cluster: Cluster, retries: int = 3) -> None:
        self._workers = workers
        self._cluster = cluster
        self._options = {"num_cpus": cpus, "num_gpus": workers.gpus, "max_retries": retries}

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], on_task_failure: Callable[[T, str], R] | None = None
    ) -> Iterator[tuple[int, R]]:
        import ray

        remote = ray.remote(function).options(**self._options)
        waiting = list(enumerate(tasks))[::-1]
        running: dict[Any, tuple[int, frozenset[str]]] = {}  # with the nodes already lost when it started
        try:
            while waiting or running:
                raise_if_cancelled()
                self._cluster.check()
                self._cluster.look()
                while waiting and len(running) < self._workers.count:
                    position, task = waiting.pop()
                    running[remote.remote(task)] = position, self._cluster.lost_nodes
                done, _ = ray.wait(list(running), num_returns=1, timeout=LOOK_SECONDS)
                if done:
                    position, lost_before = running.pop(done[0])
                    try:
                        yield position, _result(done[0], self._cluster, lost_before)
                    except _LostNodeError:
                        waiting.append((position, tasks[position]))
                    except DeadWorkersError as error:
                        if on_task_failure is None:
                            raise
                        yield position, on_task_failure(tasks[position], str(error))
        finally:
            for reference in () if self._cluster.is_lost else running:
                ray.cancel(reference, force=True)


class _LostNodeError(LostError):
    """A task or its result was lost with its node."""


def _result(reference: Any, cluster: Cluster, lost_before: frozenset[str]) -> Any:
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, HeadhuntError) else error from None
    except RayError as error:
        cluster.check()
        cluster.look(now=True)
        # A lost node shows up as different errors, and Ray counts it as a retry of the task.
        if isinstance(error, NodeDiedError) or cluster.lost_nodes - lost_before:
            raise _LostNodeError(str(error)) from error
        if isinstance(error, OutOfMemoryError | WorkerCrashedError):
            short = str(error).strip().splitlines()[0]
            raise DeadWorkersError(f"a worker was killed repeatedly, probably out of memory: {short}") from error
        raise LostError(f"a Ray worker failed permanently: {error} Finished work is saved.") from error


def start_ray(workers: Workers, empty: Path, variables: Mapping[str, str]) -> str:
    """Joins the configured cluster, or starts Ray on this machine; returns the address (`local` for the latter).

    Workers start in the folder `empty` with these variables. If Ray does not come up in time, as on a busy machine, it is started
    again. Raises UsageError when no cluster answers or Ray cannot use HOME or the temporary folder, LostError when Ray never
    comes up.
    """
    import ray

    address = address_of(workers)
    options: dict[str, Any] = {
        "address": address,
        "runtime_env": {"working_dir": str(empty), "env_vars": dict(variables)},
        "include_dashboard": False if address == "local" else None,
        "logging_level": "error",
        "log_to_driver": False,
    }
    shorten_ray()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _check_address(address)
            ray.init(**options)
            return address
        except (ConnectionError, TimeoutError, socket.gaierror) as error:
            if address != "local":
                raise _no_cluster(workers, address, error) from error
            fault: Exception = error
        except OSError as error:
            if address != "local":
                raise
            raise _unusable(error) from error
        except Exception as error:  # Ray has no exception class for a node that did not come up in time
            if type(error) not in (Exception, RuntimeError):
                raise
            fault = error
        _end_half_started(fault)
        if _is_full():
            raise UsageError(
                f"Ray cannot start here: its temporary folder {_temporary()} is full. Free some space, or set TMPDIR to another "
                f"folder. {WITHOUT_RAY}"
            ) from fault
        if attempt < ATTEMPTS:
            log.print(f"Ray did not start: {_first_line(fault)} Attempt {attempt + 1} of {ATTEMPTS} …", style="yellow")
    raise LostError(
        f"Ray did not start in {ATTEMPTS} attempts: {_first_line(fault)} The machine may be overloaded. {WITHOUT_RAY}"
    ) from fault


def address_of(workers: Workers) -> str:
    """The cluster to join, or `local` to start one. Without an address, Ray would join any cluster it finds on this machine."""
    found = os.environ.get("RAY_ADDRESS", "")
    named = "" if found.startswith(("http:", "https:")) else found  # http: for `ray job submit`
    return workers.address or named or "local"


def _no_cluster(workers: Workers, address: str, error: Exception) -> UsageError:
    named = "`workers.address`" if workers.address else "RAY_ADDRESS in the environment"
    return UsageError(
        f"no Ray cluster answers at {address!r}: {error}. Fix {named}, or remove it to use only this machine."
    )


def _unusable(error: OSError) -> UsageError:
    """The error for a folder that Ray cannot use."""
    home = os.environ.get("HOME", "")
    if "AF_UNIX" in str(error):
        what = f"The path of the temporary folder, {_temporary()}, is too long for Ray's sockets. Set TMPDIR to a shorter one"
    elif home and str(error.filename or "").startswith(home.rstrip("/") + "/"):
        what = f"Ray needs a writable HOME, but HOME is {home}. Set HOME to another folder"
    else:
        what = f"Ray needs a writable temporary folder with free space. Set TMPDIR to one other than {_temporary()}"
    return UsageError(f"Ray cannot start here: {error}. {what}. {WITHOUT_RAY}")


def _temporary() -> str:
    """Ray's temporary folder."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def _end_half_started(error: Exception) -> None:
    """Kills the processes of a Ray that did not come up. Ray itself would do so only when this process ends."""
    import ray

    kill_half_started(error)
    ray.shutdown()


def _is_full() -> bool:
    try:
        return shutil.disk_usage(_temporary()).free < LEAST_BYTES
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    """The first line of an error's message, shortened, ending in a full stop."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)[:LONGEST]
    return line if line.endswith(".") else f"{line}."


def _check_address(address: str) -> None:
    """Connects once to a `host:port`, with or without ray://. Ray itself would retry for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
