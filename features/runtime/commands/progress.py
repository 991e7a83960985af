"""Progress of long work: a bar on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from features.runtime.log import log

LINE_SECONDS = 10
"""Without a terminal, a line is printed this often, and at the end if any was printed before."""


@contextmanager
def progress(what: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of newly completed items, of `total`; `unit` labels the rate."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    bars = Progress(TextColumn(what), *columns, console=log, transient=True, disable=not log.is_terminal)
    done, began = 0, time.monotonic()
    said = began

    def advance(more: int) -> None:
        nonlocal done, said
        done, now = done + more, time.monotonic()
        rate = done / max(now - began, 1e-9)
        pace = " ".join(filter(None, [f"{rate:.1f}" if rate >= 1 else f"{60 * rate:.1f}", unit]))
        pace += "/s" if rate >= 1 else "/min"
        bars.update(bar, completed=done, rate=pace)
        if not log.is_terminal and (now - said >= LINE_SECONDS or (done == total and said > began)):
            said = now
            log.print(f"  {what}: {done} of {total}, {pace}, {(total - done) / rate:.0f} s left")

    with bars:
        bar = bars.add_task("", total=total, rate="")
        yield advance
