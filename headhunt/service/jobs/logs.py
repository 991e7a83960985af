"""A job's log as a stream that continues while the job runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

PIECE = 64 * 1024
LOOK_SECONDS = 0.5


async def stream(log: Path, follow: bool, is_over: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log's contents; with `follow`, also what is appended until the job ends."""
    offset = 0
    while True:
        over = is_over()  # checked before reading, so that nothing written before the end is missed
        while piece := await asyncio.to_thread(_read, log, offset):
            offset += len(piece)
            yield piece
        if over or not follow:
            return
        await asyncio.sleep(LOOK_SECONDS)


def _read(log: Path, offset: int) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(offset)
            return file.read(PIECE)
    except FileNotFoundError:  # the job has not begun
        return b""
