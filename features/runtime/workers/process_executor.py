"""Runs tasks in processes on this machine, without Ray: `workers.executor: auto` if no cluster is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from features.runtime.errors import DeadWorkersError
from features.runtime.interrupts import raise_if_cancelled
from features.runtime.workers.worker_process import DeadWorkerError, WorkerProcess

T = TypeVar("T")
R = TypeVar("R")

LOOK_SECONDS = 2.0
"""Seconds between a waiting driver's checks for an interrupt."""


class ProcessExecutor:
    """Runs tasks on one worker per entry of `environments`, each started on first use.

    A task whose worker dies is retried on another one, up to `retries` times.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]], folder: Path, retries: int = 3) -> None:
        self._environments = environments
        self._folder = folder
        self._retries = retries
        self._workers: dict[int, WorkerProcess] = {}

    def map(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        on_task_failure: Callable[[T, str], R] | None = None,
    ) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        waiting = [(position, 0) for position in range(len(tasks))][::-1]  # with the number of its workers that died
        running: dict[int, tuple[int, int]] = {}
        try:
            while waiting or running:
                raise_if_cancelled()
                for slot in range(len(self._environments)):
                    if waiting and slot not in running:
                        running[slot] = waiting.pop()
                        self._give(slot, function, tasks[running[slot][0]])
                slots: dict[Any, int] = {self._workers[slot].connection: slot for slot in running}
                for connection in wait(list(slots), LOOK_SECONDS):
                    slot = slots[connection]
                    position, deaths = running.pop(slot)
                    try:
                        result = self._workers[slot].result()
                    except DeadWorkerError as death:
                        self._workers.pop(slot).end()
                        if deaths < self._retries:
                            waiting.append((position, deaths + 1))
                            continue
                        if on_task_failure is None:
                            raise DeadWorkersError(f"{death.repeated}. Finished work is saved.") from None
                        result = on_task_failure(tasks[position], death.repeated)
                    yield position, result
        finally:
            for slot in running.keys() & self._workers.keys():  # their results are no longer needed
                self._workers.pop(slot).end()

    def close(self) -> None:
        """Kills the workers."""
        while self._workers:
            self._workers.popitem()[1].end()

    def _give(self, slot: int, function: Callable[[T], R], task: T) -> None:
        """Sends a task to the worker of this slot, which is replaced if it died while idle."""
        for _ in range(2):
            if slot not in self._workers:
                self._workers[slot] = WorkerProcess(self._environments[slot], self._folder)
            try:
                return self._workers[slot].give(function, task)
            except DeadWorkerError as error:
                death = error
                self._workers.pop(slot).end()
        raise DeadWorkersError(f"worker processes fail to start: {death}.")
