"""A job's log as a stream that goes on while the job does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

PIECE = 64 * 1024
LOOK_SECONDS = 0.5


async def stream(log: Path, follow: bool, is_over: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What the log holds; with `follow`, what is added too, until the job is over."""
    offset = 0
    while True:
        over = is_over()  # asked before the log is read: what was written before the end is not missed
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
    except FileNotFoundError:  # a job that has not begun
        return b""
