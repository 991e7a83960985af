"""Progress of a search: a live table on a terminal, otherwise one line per generation of trials."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.metric import Metric
from search.ranking import Score

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
"""Optuna's trial states, with the words shown for them."""


class Row(NamedTuple):
    """A trial of the current generation; completed trials have a value, `words` describe the configuration. `here` is false for a
    trial that an earlier, killed driver finished training."""

    number: int
    state: str
    value: float | None
    words: Sequence[str]
    here: bool = True
    val_loss: float = math.inf


class Best(NamedTuple):
    """The best completed trial."""

    number: int
    value: float
    words: Sequence[str]
    val_loss: float = math.inf


class SearchSnapshot(NamedTuple):
    """A search's progress. `counts` are trials by STATES; `ended_here` of them ended in this process, the last one `ended_at`
    seconds after the first generation began; `elapsed` is the time since then, in seconds."""

    study: str
    objective: Metric
    total: int
    counts: dict[str, int]
    best: Best | None
    ended_here: int = 0
    ended_at: float = 0.0
    elapsed: float = 0.0

    @property
    def ended(self) -> int:
        """Number of finished trials."""
        return sum(count for state, count in self.counts.items() if state != "RUNNING")

    @property
    def per_minute(self) -> float | None:
        """Trials finished per minute, measured in this process only; None before the first."""
        return 60 * self.ended_here / self.ended_at if self.ended_here and self.ended_at > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left at this rate; None before the first trial has ended."""
        if self.per_minute is None:
            return None
        since = self.elapsed - self.ended_at
        return max(0.0, 60 * (self.total - self.ended) / self.per_minute - since)


def table(standing: SearchSnapshot) -> Table:
    """The live table."""
    shown = Table.grid(padding=(0, 2), expand=False)
    shown.add_column(style="bold", no_wrap=True, min_width=len("best so far"))
    shown.add_column(no_wrap=True, overflow="ellipsis")
    shown.add_row("study", standing.study)
    shown.add_row("best so far", _best(standing))
    for line in standing.best.words if standing.best else ():
        shown.add_row("", Text(line, style="dim"))
    bar = Table.grid(padding=(0, 2))
    bar.add_row(ProgressBar(standing.total, standing.ended, width=30), f"{standing.ended} of {standing.total}")
    shown.add_row("trials", bar)
    shown.add_row("", ", ".join(f"{standing.counts.get(state, 0)} {word}" for state, word in STATES.items()))
    shown.add_row("pace", _pace(standing, f"{_clock(standing.elapsed)} elapsed"))
    return shown


def line(standing: SearchSnapshot, rows: Sequence[Row], seconds: float) -> str:
    """The line for a finished generation, where there is no terminal."""
    states = [row.state for row in rows]
    odd = ", ".join(f"{states.count(state)} {STATES[state]}" for state in ("PRUNED", "FAIL") if state in states)
    numbers = f"{rows[0].number}–{rows[-1].number}"
    best = "no completed trials yet"
    if standing.best:
        best = f"best {standing.objective} {standing.best.value:.4f} (trial {standing.best.number})"
    told = f"  trials {numbers} of {standing.total}{f' ({odd})' if odd else ''}: {best}, {seconds:.1f} s"
    return f"{told}; {_pace(standing)}"


class Progress:
    """Shows a search's progress for the duration of a `with` block, however it ends."""

    def __init__(self, console: Console, told: SearchSnapshot, clock: Callable[[], float] = time.monotonic) -> None:
        """`told` is the study's state before this search: the display starts from there."""
        self._console = console
        self._state: tuple[SearchSnapshot, Sequence[Row]] = (
            told,
            (),
        )  # a single value, since the table is drawn on another thread
        self._clock = clock
        self._started = self._generation_started = clock()
        self._ended_at = 0.0
        self._live = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(get_renderable=lambda: table(self.standing), console=console, refresh_per_second=2)

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    @property
    def standing(self) -> SearchSnapshot:
        """The current progress: told trials plus the current generation."""
        told, rows = self._state
        counts = {state: told.counts.get(state, 0) + sum(row.state == state for row in rows) for state in STATES}
        best = told.best
        for row in rows:
            if row.value is None:
                continue
            score = Score.of(told.objective, row.value, row.val_loss)
            if best is None or score < Score.of(told.objective, best.value, best.val_loss):
                best = Best(row.number, row.value, row.words, row.val_loss)
        ended_here = told.ended_here + sum(row.here and row.state != "RUNNING" for row in rows)
        elapsed = self._clock() - self._started
        return told._replace(counts=counts, best=best, ended_here=ended_here, ended_at=self._ended_at, elapsed=elapsed)

    def update(self, rows: Sequence[Row]) -> None:
        """Updates the current generation: its trials in order of number."""
        before = self.standing.ended_here
        self._state = (self._state[0], rows)
        if self.standing.ended_here != before:
            self._ended_at = self._clock() - self._started
        if self._live:
            self._live.refresh()

    def told(self) -> None:
        """Marks the generation as finished; the next one continues from its counts."""
        now = self._clock()
        if not self._live:
            text = line(self.standing, self._state[1], now - self._generation_started)
            self._console.print(text)
        self._state = (self.standing, ())
        self._generation_started = now


def _best(standing: SearchSnapshot) -> str:
    if standing.best is None:
        return "no completed trials yet"
    return f"{standing.objective} {standing.best.value:.4f} (trial {standing.best.number})"


def _pace(standing: SearchSnapshot, *before: str) -> str:
    rate, left = standing.per_minute, standing.seconds_left
    if rate is None or left is None:
        return ", ".join([*before, "no finished trials yet"])
    per_minute = f"{rate:.1f}" if rate < 10 else f"{rate:.0f}"
    words = [f"{per_minute} trials/min", *before]
    return ", ".join([*words, f"{_clock(left)} left"] if standing.ended < standing.total else words)


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds: `1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
