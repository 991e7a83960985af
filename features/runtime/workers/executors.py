"""Where tasks run: in this process, in processes on this machine, or on Ray workers, behind one interface.

A task is a module-level function of one picklable argument. It must be idempotent: it is retried when its worker dies. The
function keeps expensive state (a backbone, features in memory) in an `lru_cache` of its process.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from features.runtime.atomic import make_folder
from features.runtime.commands.stages import end_with_parent
from features.runtime.errors import UsageError
from features.runtime.interrupts import LEFT, raise_if_cancelled
from features.runtime.log import counted, log
from features.runtime.workers.cluster import Cluster
from features.runtime.workers.config import Workers
from features.runtime.workers.engine import start_keras
from features.runtime.workers.gpus import check_gpus, find_gpus
from features.runtime.workers.process_executor import ProcessExecutor
from features.runtime.workers.ray_executor import RayExecutor, address_of, start_ray

T = TypeVar("T")
R = TypeVar("R")

OnTaskFailure = Callable[[T, str], R]
"""Returns a fallback result for a task that failed permanently, given the task and the reason."""


class Executor(Protocol):
    """Runs tasks and yields their results as they finish."""

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], on_task_failure: OnTaskFailure[T, R] | None = None
    ) -> Iterator[tuple[int, R]]:
        """Yields `(position in tasks, result)` in order of completion.

        An exception of a task is raised here unchanged. Leaving the iteration early cancels tasks that have not started. A task
        that crashes every worker process that runs it gets the result `on_task_failure(task, reason)`, or raises
        DeadWorkersError.
        """
        ...


class LocalExecutor:
    """Runs tasks in this process, one after the other or on a few threads."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], on_task_failure: OnTaskFailure[T, R] | None = None
    ) -> Iterator[tuple[int, R]]:
        if self._threads == 1:
            for position, task in enumerate(tasks):
                raise_if_cancelled()
                yield position, function(task)
            return
        pool = ThreadPoolExecutor(self._threads, "thread")
        try:
            positions = {pool.submit(function, task): position for position, task in enumerate(tasks)}
            for done in as_completed(positions):
                yield positions[done], done.result()
        finally:
            LEFT.set()
            pool.shutdown(cancel_futures=True)
            LEFT.clear()


def in_own_process(environment: Mapping[str, str], function: Callable[..., R], *arguments: Any) -> R:
    """Calls a module-level function in a new process with these environment variables, e.g. for another Keras backend.

    An interrupt kills that process at once. On Linux it is killed when this process ends.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, _begin, (dict(environment), os.getpid())) as pool:
        future = pool.submit(function, *arguments)
        try:
            return future.result()
        except KeyboardInterrupt:  # otherwise the pool would wait for the function to finish
            for process in multiprocessing.active_children():
                process.kill()
            raise


def _begin(variables: Mapping[str, str], parent: int) -> None:
    os.environ.update(variables)
    if sys.platform == "linux":
        end_with_parent()
        if os.getppid() != parent:
            os._exit(1)


Kind = Literal["local", "processes", "ray"]


def executor_of(workers: Workers) -> Kind:
    """The executor to use. `auto` is Ray if `workers.address` or RAY_ADDRESS names a cluster, otherwise processes."""
    if workers.executor != "auto":
        return workers.executor
    return "processes" if address_of(workers) == "local" else "ray"


def check_devices(workers: Workers) -> None:
    """Raises UsageError when this machine lacks the GPUs that a worker needs. A cluster is not checked: nodes may join later."""
    if workers.gpus and (executor_of(workers) != "ray" or address_of(workers) == "local"):
        check_gpus(workers.gpus)


@contextmanager
def open_executor(
    workers: Workers, workdir: Path, environment: Mapping[str, str], threads: bool = False
) -> Iterator[Executor]:
    """Starts (or joins) the configured executor and stops it at the end of the block.

    RAY_ADDRESS, which Ray sets for the processes of a Ray job, is used if the configuration names no cluster.
    `environment` holds variables that a worker needs before its first import (KERAS_BACKEND, thread counts); the
    local executor sets them in this process. Workers start in an empty folder below `workdir`, so that a
    `train.py` or `search.py` in the user's working directory does not shadow our packages. With `threads`, the local
    executor runs `workers.count` tasks at a time; the function must be thread-safe. Raises UsageError when this machine lacks
    the cores or GPUs that a worker needs.
    """
    kind = executor_of(workers)
    cpus = workers.cpus or max(1, (os.cpu_count() or 1) // workers.count)
    at_a_time = workers.count if threads and kind == "local" else 1
    cores = str(max(1, int(cpus * at_a_time)))
    shares = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC"), cores)
    if (
        0 < workers.gpus < 1
    ):  # several processes share a GPU, and JAX by default preallocates three quarters of its memory
        shares["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore", **shares, **environment}
    check_devices(workers)
    if kind == "local":
        os.environ.update(variables)
        if "KERAS_BACKEND" in environment:
            start_keras(environment["KERAS_BACKEND"])
        log.print(f"Workers: in this process{f', {at_a_time} at a time' if at_a_time > 1 else ''}.")
        yield LocalExecutor(at_a_time)
    elif kind == "processes":
        with _processes(workers, cpus, workdir, variables) as processes:
            yield processes
    else:
        with _ray(workers, cpus, workdir, variables) as remote:
            yield remote


@contextmanager
def _processes(workers: Workers, cpus: float, workdir: Path, variables: Mapping[str, str]) -> Iterator[ProcessExecutor]:
    """Worker processes on this machine, at most as many as its cores and GPUs allow."""
    cores = os.cpu_count() or 1
    _check_capacity({"CPU": cores, "GPU": math.inf}, cpus, 0, "this machine")
    gpus = gpu_shares(workers.count, workers.gpus, find_gpus() if workers.gpus else ())
    slots = gpus[: max(1, int(cores // cpus))]
    environments = [{**variables, "CUDA_VISIBLE_DEVICES": ",".join(seen) or "-1"} for seen in slots]
    what = f"{counted(len(slots), 'process', 'processes')} on this machine"
    log.print(f"Workers: {what}{', each with its own GPU' if workers.gpus else ''}.")
    processes = ProcessExecutor(environments, make_folder(workdir.resolve() / ".workers"))
    try:
        yield processes
    finally:
        processes.close()


def gpu_shares(count: int, gpus: float, found: Sequence[str]) -> list[list[str]]:
    """The GPUs from `found` that each worker sees, for at most `count` workers; fewer if the GPUs do not suffice.

    `gpus=2` of a, b, c, d: [a, b], [c, d]. `gpus=0.5` of a, b: [a], [a], [b], [b]. `gpus=0`: none for any worker.
    """
    if not gpus:
        return [[] for _ in range(count)]
    if gpus < 1:
        each = int(1 / gpus)
        return [[gpu] for gpu in found for _ in range(each)][:count]
    whole = math.ceil(gpus)
    return [list(found[start : start + whole]) for start in range(0, len(found) - whole + 1, whole)][:count]


@contextmanager
def _ray(workers: Workers, cpus: float, workdir: Path, variables: Mapping[str, str]) -> Iterator[RayExecutor]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = (
        "1"  # the folder and variables of a surrounding Ray job would conflict with ours
    )
    import ray

    started, address = not ray.is_initialized(), address_of(workers)
    if started:
        address = start_ray(workers, make_folder(workdir.resolve() / ".ray"), variables)
    where = "this machine" if address == "local" else f"the cluster at {address}"
    log.print(f"Workers: {workers.count} at a time, by Ray on {where}.")
    cluster = Cluster(started and address == "local", cpus, workers.gpus)
    try:
        if address == "local":
            _check_capacity(ray.cluster_resources(), cpus, workers.gpus, "the Ray cluster")
        yield RayExecutor(workers, cpus, cluster)
    finally:
        if started:
            ray.shutdown()  # even if the cluster is lost: it takes seconds, but without it the process crashes on exit


def _check_capacity(resources: Mapping[str, float], cpus: float, gpus: float, where: str) -> None:
    for name, wanted, key in (("CPU", cpus, "cpus"), ("GPU", gpus, "gpus")):
        if wanted > resources.get(name, 0):
            raise UsageError(
                f"each worker needs {wanted:g} {name}s, but {where} has only {resources.get(name, 0):g} in total. "
                f"Lower `workers.{key}`."
            )
