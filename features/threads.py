"""Many small jobs on a few threads, with progress: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from features.command import log

T = TypeVar("T")
R = TypeVar("R")

QUIET_SECONDS = 10
"""Elsewhere than on a terminal, progress is said at most this often."""


def in_threads(work: Callable[[T], R], items: Sequence[T], what: str) -> list[R]:
    """`work` of each item, in their order, on as many threads as there are cores.

    When an item raises, or on Ctrl-C, what has not begun is dropped and the exception goes on.
    """
    results: list[R] = []
    progress = Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=log, transient=True, disable=not log.is_terminal,
    )  # fmt: skip
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    said = time.monotonic()
    try:
        with progress:
            for result in progress.track(pool.map(work, items), total=len(items)):
                results.append(result)
                if not log.is_terminal and time.monotonic() - said > QUIET_SECONDS:
                    said = time.monotonic()
                    log.print(f"  {what}: {len(results)} of {len(items)}")
    finally:
        pool.shutdown(cancel_futures=True)
    return results
