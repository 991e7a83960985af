"""Tasks on processes of this machine, without Ray: what `workers.executor: auto` chooses where no cluster is named."""

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
"""How often a driver that waits for its workers looks whether it was interrupted."""


class ProcessExecutor:
    """Tasks on as many workers as there are `environments`, each started when it is first needed.

    A task whose worker dies is given to another one, up to `retries` times.
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
        given_up: Callable[[T, str], R] | None = None,
    ) -> Iterator[tuple[int, R]]:
        """See `Executor.map`."""
        waiting = [(position, 0) for position in range(len(tasks))][::-1]  # with the workers that it took down
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
                        if given_up is None:
                            raise DeadWorkersError(f"{death.repeated}. Finished work is saved.") from None
                        result = given_up(tasks[position], death.repeated)
                    yield position, result
        finally:
            for slot in running.keys() & self._workers.keys():  # nobody waits for what they do
                self._workers.pop(slot).end()

    def close(self) -> None:
        """Ends the workers."""
        while self._workers:
            self._workers.popitem()[1].end()

    def _give(self, slot: int, function: Callable[[T], R], task: T) -> None:
        """Gives a task to the worker of this slot; one that died while it had nothing to do is replaced."""
        for _ in range(2):
            if slot not in self._workers:
                self._workers[slot] = WorkerProcess(self._environments[slot], self._folder)
            try:
                return self._workers[slot].give(function, task)
            except DeadWorkerError as error:
                death = error
                self._workers.pop(slot).end()
        raise DeadWorkersError(f"workers do not start: {death}.")
