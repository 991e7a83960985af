"""Follows running promotions, here or on other machines: shows their messages and progress bars, and records their epochs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from features.runtime.log import log
from train.finetuning.journal import Reader
from train.promotion.record import PromotionStudy
from train.promotion.worker import Task

LOOK_SECONDS = 1.0


class Followed:
    """The followed promotions, checked by a thread every second and whenever one has ended."""

    def __init__(self, tasks: Sequence[Task], record: PromotionStudy, bars: Bars) -> None:
        self._tasks = tasks
        self._record = record
        self._bars = bars
        self._rows: dict[str, TaskID] = {}
        self._readers = {task.made_from: Reader(task.folder) for task in tasks}
        self._reported = {task.made_from: 0 for task in tasks}
        self._lock = threading.Lock()

    def look(self) -> None:
        """Shows and records what is new in all promotions."""
        for task in self._tasks:
            self.catch_up(task)

    def catch_up(self, task: Task) -> None:
        """Shows and records what is new in one promotion."""
        with self._lock:
            reader = self._readers[task.made_from]
            accuracies = reader.accuracies()
            for line in reader.sentences():
                log.print(f"Trial {task.leader.number}: {line}")
            if len(accuracies) > self._reported[task.made_from]:
                self._record.report(task.leader, task.folder, task.made_from, accuracies)
                self._reported[task.made_from] = len(accuracies)
            self._show(task, reader)

    def _show(self, task: Task, reader: Reader) -> None:
        progress, row = reader.progress(), self._rows.get(task.made_from)
        if progress is None:
            if row is not None:
                self._bars.remove_task(self._rows.pop(task.made_from))
            return
        title = f"trial {task.leader.number}, epoch {progress.epoch}/{progress.epochs}"
        if row is None or self._bars.tasks[self._bars.task_ids.index(row)].description != title:
            if row is not None:
                self._bars.remove_task(row)
            row = self._rows[task.made_from] = self._bars.add_task(title, total=progress.steps, loss=progress.loss)
        self._bars.update(row, completed=progress.step, loss=progress.loss)


@contextmanager
def follow(tasks: Sequence[Task], record: PromotionStudy) -> Iterator[Followed]:
    """Follows these promotions until the end of the block."""
    bars = Bars(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(), console=log, transient=True, disable=not log.is_terminal,
    )  # fmt: skip
    followed, ended = Followed(tasks, record, bars), threading.Event()

    def watch() -> None:
        faults = 0
        while not ended.wait(LOOK_SECONDS):
            try:
                followed.look()
                faults = 0
            except Exception as error:  # storage unavailable: promotions continue, the next look catches up
                faults += 1
                if faults == 1:
                    log.print(f"Cannot record the promotions right now, retrying: {error}", style="yellow")

    with bars:
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield followed
        except BaseException:
            ended.set()
            thread.join()
            with suppress(Exception):  # the original error matters more
                followed.look()
            raise
        ended.set()
        thread.join()
        followed.look()
