"""Which worker trained what, and when: `trials/work.csv`, one row per task, appended at the end of every rung.

It is only a log: no result depends on it, and a study without its log continues as before. Both the reader and the next search
drop a last line that a kill left half-written.
"""

from __future__ import annotations

import csv
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from features.runtime.log import log


class Work(NamedTuple):
    """A task of one rung.

    `session` is when the driver started, `started` when the worker began the task, both in seconds since 1970; `seconds` is the
    task's duration, including compilation. `workers` is the number of tasks the driver ran at a time. `trials` is the number of
    trials in the task, `ended` how many of them ended with it, `epochs` the total number of epochs they trained.
    """

    session: float
    workers: int
    worker: str
    started: float
    seconds: float
    trials: int
    ended: int
    epochs: int


def this_worker() -> str:
    """This worker's name: `host/process`, plus the thread's name outside the main thread."""
    thread = threading.current_thread()
    part = [] if thread is threading.main_thread() else [thread.name]
    return "/".join([socket.gethostname(), str(os.getpid()), *part])


class WorkLog:
    """The log of one session of a search, written only by its driver; starts empty unless the study `goes_on`."""

    def __init__(self, workdir: Path, workers: int, goes_on: bool) -> None:
        self._path, self._goes_on, self._is_whole = work_file(workdir), goes_on, False
        self.session, self.workers = round(time.time(), 3), workers

    def append(self, rows: Sequence[Work]) -> None:
        """Appends rows. Disk errors are logged and ignored: no result depends on this file."""
        try:
            if not self._is_whole and self._path.exists():
                os.truncate(self._path, self._path.read_bytes().rfind(b"\n") + 1 if self._goes_on else 0)
            self._is_whole = True
            with self._path.open("a", encoding="utf-8", newline="") as file:
                header = [] if file.tell() else [Work._fields]
                csv.writer(file, lineterminator="\n").writerows([*header, *rows])
        except OSError as error:
            log.print(f"Cannot write {self._path}: {error.strerror or error}.", style="yellow")


def work_file(workdir: Path) -> Path:
    """`trials/work.csv`."""
    return workdir / "trials" / "work.csv"


def load_work(workdir: Path) -> list[Work]:
    """Every complete row of the log, in order of writing; empty if there is no log."""
    try:
        text = work_file(workdir).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for cells in csv.reader(text.split("\n")[1:-1]):  # after the last newline there is nothing, or half a row
        try:
            session, workers, worker, started, seconds, trials, ended, epochs = cells
            numbers = (int(trials), int(ended), int(epochs))
            found.append(Work(float(session), int(workers), worker, float(started), float(seconds), *numbers))
        except ValueError:
            continue
    return found
