"""Many small jobs on a few threads, with progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from features.runtime.commands.progress import progress

T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], items: Sequence[T], what: str) -> list[R]:
    """Applies `work` to each item on one thread per core; results are in the order of `items`.

    If an item raises, or on Ctrl-C, items that have not started are dropped and the exception propagates.
    """
    results: list[R] = []
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        with progress(what, len(items)) as advance:
            for result in pool.map(work, items):
                results.append(result)
                advance(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return results
