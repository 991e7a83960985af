"""The output of a running promotion, as files in its folder, so that other processes can follow it from any machine.

`log.txt` has its messages, `history.csv` its epochs, and `progress.json` the progress of the current epoch.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from features.runtime.errors import HeadhuntError
from train.finetuning.history import HISTORY, read_history

LOG, PROGRESS = "log.txt", "progress.json"

SECONDS = 1.0
"""Minimum time between writes of the progress."""


class Progress(NamedTuple):
    """The current epoch, its current step, and the mean loss of its steps so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float


class Journal:
    """Writes the files of a promotion's output."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written = 0.0

    def log(self, line: str) -> None:
        """Appends a line to the log."""
        path = self._folder / LOG
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise HeadhuntError(f"cannot write {path}: {error.strerror}. The last checkpoint is intact.") from error

    def step(self, progress: Progress) -> None:
        """Writes the progress, at most every SECONDS."""
        now = time.monotonic()
        if now - self._written < SECONDS:
            return
        self._written = now
        temporary = self._folder / f".{PROGRESS}.tmp"
        with suppress(OSError):  # writing the checkpoint will report a full disk
            temporary.write_text(json.dumps(progress), encoding="utf-8")
            temporary.replace(self._folder / PROGRESS)

    def close(self) -> None:
        """Deletes the progress: the promotion has ended."""
        (self._folder / PROGRESS).unlink(missing_ok=True)


class Reader:
    """Reads what is new since the last call; the log's earlier content does not count as new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = len(self._text())

    def sentences(self) -> list[str]:
        """The new complete lines of the log."""
        new = self._text()[self._read :]
        whole = new[: new.rfind("\n") + 1]
        self._read += len(whole)
        return whole.splitlines()

    def progress(self) -> Progress | None:
        """The progress of the current epoch; None if no promotion is running."""
        try:
            return Progress(*json.loads((self._folder / PROGRESS).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def accuracies(self) -> list[float]:
        """The validation accuracy of every epoch so far; epoch 0 is the frozen network's."""
        if not (self._folder / HISTORY).exists():
            return []
        return [epoch.val_accuracy for epoch in read_history(self._folder)]

    def _text(self) -> str:
        try:
            return (self._folder / LOG).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
