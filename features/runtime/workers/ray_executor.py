"""Tasks on Ray workers, here or on a cluster, and the start of a Ray on this machine."""

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
"""How often a driver that waits for a Ray worker looks whether there still is a cluster."""

ATTEMPTS = 3
"""How often Ray is started on this machine before a run gives up."""

WITHOUT_RAY = "Or run without Ray: `workers.executor: auto` or `local`."

LEAST_BYTES = 10_000_000
"""Free space without which Ray does not start."""

LONGEST = 300
"""Characters of what Ray says in a message, at most."""


class RayExecutor:
    """Tasks on Ray workers, at most `count` at a time; a task whose worker dies runs again, up to `retries` times.

    Tasks that are lost with their node run again as often as that happens: a long run on preemptible machines loses many.
    """

    def __init__(self, workers: Workers, cpus: float, cluster: Cluster, retries: int = 3) -> None:
        self._workers = workers
        self._cluster = cluster
        self._options = {"num_cpus": cpus, "num_gpus": workers.gpus, "max_retries": retries}

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], given_up: Callable[[T, str], R] | None = None
    ) -> Iterator[tuple[int, R]]:
        import ray

        remote = ray.remote(function).options(**self._options)
        waiting = list(enumerate(tasks))[::-1]
        running: dict[Any, tuple[int, frozenset[str]]] = {}  # with the nodes that were lost before
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
                        if given_up is None:
                            raise
                        yield position, given_up(tasks[position], str(error))
        finally:
            for reference in () if self._cluster.is_lost else running:
                ray.cancel(reference, force=True)


class _LostNodeError(LostError):
    """A task, or its result, that was lost with the node that it was on."""


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
        # A lost node shows in several ways, and Ray counts it among the retries of its tasks.
        if isinstance(error, NodeDiedError) or cluster.lost_nodes - lost_before:
            raise _LostNodeError(str(error)) from error
        if isinstance(error, OutOfMemoryError | WorkerCrashedError):
            short = str(error).strip().splitlines()[0]
            raise DeadWorkersError(f"a worker was killed repeatedly, probably out of memory: {short}") from error
        raise LostError(f"a Ray worker failed permanently: {error} Finished work is saved.") from error


def start_ray(workers: Workers, empty: Path, variables: Mapping[str, str]) -> str:
    """Joins the cluster that is named, or starts Ray on this machine; gives the address (`local` for the latter).

    Workers start in the folder `empty` with these variables. A Ray that does not come up in time, as on a busy machine, is
    started again. Raises UsageError where no cluster answers or Ray cannot use HOME or the temporary folder, LostError when Ray
    never comes up.
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
        except Exception as error:  # of a node that did not come up in time: Ray has no class of its own for that
            if type(error) not in (Exception, RuntimeError):
                raise
            fault = error
        _end_half_started(fault)
        if _is_full():
            raise UsageError(
                f"Ray cannot start here: {_temporary()}, which it writes to, is full. Free some space, or set TMPDIR to another "
                f"folder. {WITHOUT_RAY}"
            ) from fault
        if attempt < ATTEMPTS:
            log.print(f"Ray did not start: {_first_line(fault)} Attempt {attempt + 1} of {ATTEMPTS} …", style="yellow")
    raise LostError(
        f"Ray did not start in {ATTEMPTS} attempts: {_first_line(fault)} The machine may be overloaded. {WITHOUT_RAY}"
    ) from fault


def address_of(workers: Workers) -> str:
    """The cluster to join, or `local`: start one. Ray, left without an address, joins any that it finds on this machine."""
    found = os.environ.get("RAY_ADDRESS", "")
    named = "" if found.startswith(("http:", "https:")) else found  # where `ray job submit` sends jobs
    return workers.address or named or "local"


def _no_cluster(workers: Workers, address: str, error: Exception) -> UsageError:
    named = "`workers.address`" if workers.address else "RAY_ADDRESS in the environment"
    return UsageError(
        f"no Ray cluster answers at {address!r}: {error}. Correct {named}, or leave it out to use this machine alone."
    )


def _unusable(error: OSError) -> UsageError:
    """What to say of a place that Ray cannot write to."""
    home = os.environ.get("HOME", "")
    if "AF_UNIX" in str(error):
        what = f"The name of the temporary folder, {_temporary()}, is too long for Ray's sockets. Set TMPDIR to a shorter one"
    elif home and str(error.filename or "").startswith(home.rstrip("/") + "/"):
        what = f"Ray needs a HOME that it can write to, and HOME is {home}. Set HOME to another folder"
    else:
        what = f"Ray needs a temporary folder with free space that it can write to. Set TMPDIR to another one than {_temporary()}"
    return UsageError(f"Ray cannot start here: {error}. {what}. {WITHOUT_RAY}")


def _temporary() -> str:
    """The folder that Ray puts its own into."""
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"


def _end_half_started(error: Exception) -> None:
    """Ends the processes of a Ray that did not come up; Ray itself would do so when this process ends."""
    import ray

    kill_half_started(error)
    ray.shutdown()


def _is_full() -> bool:
    try:
        return shutil.disk_usage(_temporary()).free < LEAST_BYTES
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    """What an error says, as one short sentence."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)[:LONGEST]
    return line if line.endswith(".") else f"{line}."


def _check_address(address: str) -> None:
    """Connects once to a `host:port`, with or without ray://; Ray itself goes on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
