"""Which worker trained what, and when: `trials/work.csv`, a row for each task, appended at the end of every rung.

It is a log: no result depends on it, and a study whose log is lost goes on as before. A last line that a kill left half-written
is dropped, by the reader and by the next search.
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

    `session` is when the driver that gave it began, `started` when the worker did, in seconds since 1970; `seconds` is how long
    it took, compilation included. `workers` is how many tasks that driver ran at a time. Of the task's `trials`, `ended` are over
    with it; `epochs` is how many they trained together.
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
    """`host/process`, with the thread where it is one of several: what trains here."""
    thread = threading.current_thread()
    part = [] if thread is threading.main_thread() else [thread.name]
    return "/".join([socket.gethostname(), str(os.getpid()), *part])


class WorkLog:
    """The log of one session of a search, whose driver is the only one to write it; begun anew unless the study `goes_on`."""

    def __init__(self, workdir: Path, workers: int, goes_on: bool) -> None:
        self._path, self._goes_on, self._is_whole = work_file(workdir), goes_on, False
        self.session, self.workers = round(time.time(), 3), workers

    def append(self, rows: Sequence[Work]) -> None:
        """Adds rows. A fault of the disk is said and passed over: what a search needs is written elsewhere, and fails there."""
        try:
            if not self._is_whole and self._path.exists():
                os.truncate(self._path, self._path.read_bytes().rfind(b"\n") + 1 if self._goes_on else 0)
            self._is_whole = True
            with self._path.open("a", encoding="utf-8", newline="") as file:
                header = [] if file.tell() else [Work._fields]
                csv.writer(file, lineterminator="\n").writerows([*header, *rows])
        except OSError as error:
            log.print(f"{self._path} is not written: {error.strerror or error}.", style="yellow")


def work_file(workdir: Path) -> Path:
    """`trials/work.csv`."""
    return workdir / "trials" / "work.csv"


def load_work(workdir: Path) -> list[Work]:
    """Every whole row of the log, in the order of writing; none where there is no log."""
    try:
        text = work_file(workdir).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for cells in csv.reader(text.split("\n")[1:-1]):  # after the last line end there is nothing, or half a row
        try:
            session, workers, worker, started, seconds, trials, ended, epochs = cells
            numbers = (int(trials), int(ended), int(epochs))
            found.append(Work(float(session), int(workers), worker, float(started), float(seconds), *numbers))
        except ValueError:
            continue
    return found
