"""Where tasks run: in this process, or on Ray workers. One interface, so that no stage knows which.

A task is a module-level function of one picklable argument. It must be idempotent: Ray runs it again when its worker
dies. Expensive state (a backbone, features in memory) is kept by the function, in an `lru_cache` of its process.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from features.atomic import make_folder
from features.cluster import Cluster, shorten_ray
from features.config import Workers
from features.engine import start_keras
from features.errors import HeadhuntError, LostError, UsageError

T = TypeVar("T")
R = TypeVar("R")

GivenUp = Callable[[T, str], R]
"""What stands for the result of a task that cannot be had, and the reason."""

LOOK_SECONDS = 2.0
"""How often a driver that waits for a Ray worker looks whether there still is a cluster."""


class Executor(Protocol):
    """Runs tasks and gives their results as they finish."""

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], given_up: GivenUp[T, R] | None = None
    ) -> Iterator[tuple[int, R]]:
        """Yields `(position in tasks, result)` in order of completion.

        An exception of a task is raised here as itself. Leaving the iteration early cancels what has not started. A task that
        takes one worker process after the other down with it is a LostError, or has the result `given_up(task, reason)`.
        """
        ...


class LocalExecutor:
    """Tasks in this process: one after the other, or on a few threads."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], given_up: GivenUp[T, R] | None = None
    ) -> Iterator[tuple[int, R]]:
        if self._threads == 1:
            for position, task in enumerate(tasks):
                check_wanted()
                yield position, function(task)
            return
        pool = ThreadPoolExecutor(self._threads, "thread")
        try:
            positions = {pool.submit(function, task): position for position, task in enumerate(tasks)}
            for done in as_completed(positions):
                yield positions[done], done.result()
        finally:
            _LEFT.set()
            pool.shutdown(cancel_futures=True)
            _LEFT.clear()


_LEFT = threading.Event()
"""Set while a local executor that was left early waits for its threads."""

_INTERRUPTED = threading.Event()


def interrupt(signal_number: int, frame: object) -> None:
    """Handles SIGINT and SIGTERM for a command: KeyboardInterrupt, here and at the next `check_wanted`.

    Python drops an exception that a handler raises inside a callback of the garbage collector; JAX has one, and a search spends
    much of its time there.
    """
    _INTERRUPTED.set()
    raise KeyboardInterrupt


def check_wanted() -> None:
    """For a long task in this process to call now and then, and a no-op on Ray's workers.

    Raises CancelledError when nobody waits for its result any more: a thread cannot be ended from outside. KeyboardInterrupt
    after an interrupt.
    """
    if _LEFT.is_set():
        raise CancelledError
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt


class RayExecutor:
    """Tasks on Ray workers, at most `count` at a time; a task whose worker dies runs again, up to `retries` times.

    Tasks that are lost with their node run again as often as that happens: a long run on preemptible machines loses many.
    """

    def __init__(self, workers: Workers, cpus: float, cluster: Cluster, retries: int = 3) -> None:
        self._workers = workers
        self._cluster = cluster
        self._options = {"num_cpus": cpus, "num_gpus": workers.gpus, "max_retries": retries}

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], given_up: GivenUp[T, R] | None = None
    ) -> Iterator[tuple[int, R]]:
        import ray

        remote = ray.remote(function).options(**self._options)
        waiting = list(enumerate(tasks))[::-1]
        running: dict[Any, tuple[int, frozenset[str]]] = {}  # with the nodes that were lost before
        try:
            while waiting or running:
                check_wanted()
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


def in_own_process(environment: Mapping[str, str], function: Callable[..., R], *arguments: Any) -> R:
    """What a module-level function gives in a new process with these variables: this one's Keras may be on another backend."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _set_environment, (dict(environment),)) as pool:
        return pool.submit(function, *arguments).result()


def _set_environment(variables: Mapping[str, str]) -> None:
    os.environ.update(variables)


class DeadWorkersError(LostError):
    """A task whose worker died, and every worker that it was given to after that."""


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
            raise DeadWorkersError(f"its workers died, as they do when memory is out: {short}") from error
        raise LostError(f"a Ray worker failed for good: {error} What is finished is saved.") from error


@contextmanager
def open_executor(
    workers: Workers, workdir: Path, environment: Mapping[str, str], threads: bool = False
) -> Iterator[Executor]:
    """Starts (or joins) what the configuration names and stops it at the end of the block.

    Where it names no cluster, the one of RAY_ADDRESS is joined, which Ray sets for the processes of a Ray job.
    `environment` holds the variables that a worker needs before its first import (KERAS_BACKEND, thread counts); for
    the local executor they are set in this process. Workers start in an empty folder below `workdir`, so that a
    `train.py` or `search.py` in the user's working directory does not shadow our packages. With `threads`, the local
    executor runs `workers.count` tasks at a time: the function must allow it.
    """
    cpus = workers.cpus or max(1, (os.cpu_count() or 1) // workers.count)
    at_a_time = workers.count if threads and workers.executor == "local" else 1
    cores = str(max(1, int(cpus * at_a_time)))
    shares = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC"), cores)
    if (
        0 < workers.gpus < 1
    ):  # several processes on one GPU: JAX, left alone, takes three quarters of its memory at once
        shares["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore", **shares, **environment}
    if workers.executor == "local":
        os.environ.update(variables)
        if "KERAS_BACKEND" in environment:
            start_keras(environment["KERAS_BACKEND"])
        yield LocalExecutor(at_a_time)
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = (
        "1"  # a Ray job's own folder and variables would be a conflict with ours
    )
    import ray

    started, address = not ray.is_initialized(), _address(workers)
    if started:
        empty = make_folder(workdir.resolve() / ".ray")
        try:
            _check_address(address)
            shorten_ray()
            ray.init(
                address=address,
                runtime_env={"working_dir": str(empty), "env_vars": variables},
                include_dashboard=False if address == "local" else None,
                logging_level="error",
                log_to_driver=False,
            )
        except (ConnectionError, TimeoutError, socket.gaierror) as error:
            named = "`workers.address`" if workers.address else "RAY_ADDRESS in the environment"
            raise UsageError(
                f"no Ray cluster answers at {address!r}: {error}. Correct {named}, or leave it out to start Ray on this machine."
            ) from error
        except Exception as error:
            if type(error) is not Exception:
                raise
            # A node that did not come up in time: Ray has no class of its own for that.
            raise LostError(
                f"Ray did not start: {error} The machine may have too much to do. Run the command again when it has less, or "
                "set `workers.executor: local`."
            ) from error
    cluster = Cluster(started and address == "local", cpus, workers.gpus)
    try:
        if address == "local":
            _check_capacity(ray.cluster_resources(), cpus, workers.gpus)
        yield RayExecutor(workers, cpus, cluster)
    finally:
        if started:
            ray.shutdown()  # also of a cluster that is lost: it takes seconds, and without it the process ends in a crash


def _address(workers: Workers) -> str:
    """The cluster to join, or `local`: start one. Ray, left without an address, joins any that it finds on this machine."""
    found = os.environ.get("RAY_ADDRESS", "")
    named = "" if found.startswith(("http:", "https:")) else found  # where `ray job submit` sends jobs
    return workers.address or named or "local"


def _check_address(address: str) -> None:
    """Connects once to a `host:port`, with or without ray://; Ray itself goes on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _check_capacity(resources: Mapping[str, float], cpus: float, gpus: float) -> None:
    for name, wanted, key in (("CPU", cpus, "cpus"), ("GPU", gpus, "gpus")):
        if wanted > resources.get(name, 0):
            raise UsageError(
                f"each worker asks for {wanted:g} {name}s, but the Ray cluster has {resources.get(name, 0):g} in all. "
                f"Lower `workers.{key}`."
            )
