"""What a promotion says while it runs, in files of its folder: whoever waits for it reads them, on whatever machine it runs.

`log.txt` has its sentences, `history.csv` its epochs, and `progress.json` how far the epoch is that runs now.
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
"""How often the progress is written, at most."""


class Progress(NamedTuple):
    """The epoch that runs now, and its step; the mean loss of its steps so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float


class Journal:
    """The writer's side."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written = 0.0

    def say(self, line: str) -> None:
        """Adds a sentence to the log."""
        path = self._folder / LOG
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise HeadhuntError(
                f"{path} cannot be written: {error.strerror}. The last checkpoint is intact."
            ) from error

    def step(self, progress: Progress) -> None:
        """Notes how far the epoch is; most calls write nothing."""
        now = time.monotonic()
        if now - self._written < SECONDS:
            return
        self._written = now
        temporary = self._folder / f".{PROGRESS}.tmp"
        with suppress(OSError):  # the checkpoint will say that the disk is full
            temporary.write_text(json.dumps(progress), encoding="utf-8")
            temporary.replace(self._folder / PROGRESS)

    def close(self) -> None:
        """Nothing runs here any more."""
        (self._folder / PROGRESS).unlink(missing_ok=True)


class Reader:
    """The reader's side: what is new since it looked last. What was there before it is not new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = len(self._text())

    def sentences(self) -> list[str]:
        """The whole sentences of the log that are new."""
        new = self._text()[self._read :]
        whole = new[: new.rfind("\n") + 1]
        self._read += len(whole)
        return whole.splitlines()

    def progress(self) -> Progress | None:
        """How far the epoch is that runs now."""
        try:
            return Progress(*json.loads((self._folder / PROGRESS).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def accuracies(self) -> list[float]:
        """The validation accuracy of every epoch so far; that of epoch 0 is the frozen network's."""
        if not (self._folder / HISTORY).exists():
            return []
        return [epoch.val_accuracy for epoch in read_history(self._folder)]

    def _text(self) -> str:
        try:
            return (self._folder / LOG).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
