"""What is to be known of the data although nothing stops for it: said at once, and kept by whoever collects it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from features.runtime.log import log

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


def note(text: str) -> None:
    """Logs a sentence about the data, and adds it to what is collected."""
    text = text.encode("utf-8", "replace").decode()  # names of files need not be UTF-8
    log.print(text, style="yellow")
    if (collected := _collected.get()) is not None:
        collected.append(text)


@contextmanager
def collect_notes() -> Iterator[list[str]]:
    """The sentences that are noted within the block, by the code that it calls; not by other threads."""
    notes: list[str] = []
    token = _collected.set(notes)
    try:
        yield notes
    finally:
        _collected.reset(token)
