"""Remarks about the data that are not errors: logged at once, and collected for the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from features.runtime.log import log

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


def note(text: str) -> None:
    """Logs a sentence about the data, and adds it to the collected notes, if any."""
    text = text.encode("utf-8", "replace").decode()  # file names may not be UTF-8
    log.print(text, style="yellow")
    if (collected := _collected.get()) is not None:
        collected.append(text)


@contextmanager
def collect_notes() -> Iterator[list[str]]:
    """Yields a list of the sentences noted within the block, by the code that it calls; not by other threads."""
    notes: list[str] = []
    token = _collected.set(notes)
    try:
        yield notes
    finally:
        _collected.reset(token)
