"""The utilisation of the search's workers over time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from features.runtime.log import counted
from reports.config import Run
from reports.section import LeftOutError, PageSection, Table
from reports.style import COLOURS, figure, share, text
from search.driver.worklog import Work, load_work

if TYPE_CHECKING:
    import plotly.graph_objects as go

BARS = 2000
"""Maximum number of bars in the figure."""

ROWS_HEIGHT = 900
"""Maximum total height of the rows in pixels."""

UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


class Bar(NamedTuple):
    """Consecutive tasks of one worker as one bar; `start` is in seconds of search, without the gaps between sessions, and `clock`
    is a Unix time."""

    row: str
    worker: str
    start: float
    seconds: float
    clock: float
    tasks: int
    trials: int
    epochs: int


class Session(NamedTuple):
    """From a start of the driver to the end of its last task. `begin` is a Unix time; `busy` is the share of the workers' time
    that they spent on tasks."""

    begin: float
    seconds: float
    workers: int
    busy: float
    trials: int
    epochs: int


class Utilisation(NamedTuple):
    """The sessions, their starts in seconds of search, the names of the rows in order, and a bar for each task."""

    sessions: list[Session]
    starts: list[float]
    rows: list[str]
    bars: list[Bar]

    @property
    def busy(self) -> float:
        """The busy share of the workers' time over all sessions."""
        capacity = sum(each.workers * each.seconds for each in self.sessions)
        return sum(each.busy * each.workers * each.seconds for each in self.sessions) / capacity if capacity else 0.0

    @property
    def trials_per_minute(self) -> float:
        """Trials ended per minute over all sessions."""
        seconds = sum(each.seconds for each in self.sessions)
        return 60 * sum(each.trials for each in self.sessions) / seconds if seconds else 0.0


def collect(work: Sequence[Work]) -> Utilisation:
    """Sessions and bars of a log.

    Each row is a worker. Processes change between sessions, and Ray may start more processes than work at the same time: a free
    row is reused by another process of its host.
    """
    sessions, starts, bars, elapsed = [], [], [], 0.0
    rows: dict[str, int] = {}
    for session in sorted({each.session for each in work}):
        own = sorted((each for each in work if each.session == session), key=lambda each: (each.started, each.worker))
        begin = min(session, own[0].started)
        seconds = max(each.started + each.seconds for each in own) - begin
        workers = own[0].workers
        busy = sum(each.seconds for each in own) / (workers * seconds) if seconds else 0.0
        trials, epochs = sum(each.ended for each in own), sum(each.epochs for each in own)
        sessions.append(Session(begin, seconds, workers, busy, trials, epochs))
        starts.append(elapsed)
        for each, (host, place) in zip(own, _places(own), strict=True):
            row = f"{host} {place + 1}"
            rows[row] = max(rows.get(row, 0), place)
            start = elapsed + each.started - begin
            bars.append(Bar(row, each.worker, start, each.seconds, each.started, 1, each.trials, each.epochs))
        elapsed += seconds
    ordered = sorted(rows, key=lambda row: (row.rpartition(" ")[0], rows[row]))
    return Utilisation(sessions, starts, ordered, bars)


def _places(work: Sequence[Work]) -> list[tuple[str, int]]:
    """For each task, in order of start: the host and a free row of it; preferably the worker's last row, else the lowest."""
    ends: dict[tuple[str, int], float] = {}
    last: dict[str, tuple[str, int]] = {}
    places = []
    for each in work:
        host = each.worker.partition("/")[0]
        free = [row for row, end in ends.items() if row[0] == host and end <= each.started + 1e-3]
        new = (host, sum(name == host for name, _ in ends))
        row = last[each.worker] if last.get(each.worker) in free else min(free, default=new)
        ends[row], last[each.worker] = each.started + each.seconds, row
        places.append(row)
    return places


def joined(bars: Sequence[Bar], most: int = BARS) -> list[Bar]:
    """The bars, with neighbours in a row joined, smallest gaps first, until there are at most `most`."""
    by_row: dict[str, list[Bar]] = {}
    for bar in bars:
        by_row.setdefault(bar.row, []).append(bar)
    gaps = sorted(
        (later.start - before.start - before.seconds, row, place)
        for row, own in by_row.items()
        for place, (before, later) in enumerate(pairwise(own))
    )
    closed = {(row, place) for _, row, place in gaps[: max(0, len(bars) - most)]}
    found = []
    for row, own in by_row.items():
        groups: list[list[Bar]] = []
        for place, bar in enumerate(own):
            if groups and (row, place - 1) in closed:
                groups[-1].append(bar)
            else:
                groups.append([bar])
        found += [_one(group) for group in groups]
    return found


def _one(bars: Sequence[Bar]) -> Bar:
    first, last = bars[0], bars[-1]
    seconds = last.start + last.seconds - first.start
    counts = (sum(bar.tasks for bar in bars), sum(bar.trials for bar in bars), sum(bar.epochs for bar in bars))
    return first._replace(seconds=seconds, tasks=counts[0], trials=counts[1], epochs=counts[2])


def draw(found: Utilisation) -> go.Figure:
    """A row for each worker, a bar for each task; a dotted line where the search was resumed."""
    longest = sum(each.seconds for each in found.sessions)
    unit, name = next((unit, name) for unit, name in UNITS if longest >= 3 * unit or unit == 1)
    drawn = figure(f"{name} of search", "", automargin=True, autorange="reversed", type="category")
    bars = joined(found.bars)
    for colour, parity in ((COLOURS[0], 0), ("#93c5fd", 1)):  # alternate, to distinguish neighbours
        own = bars[parity::2]
        drawn.add_bar(
            x=[bar.seconds / unit for bar in own],
            base=[bar.start / unit for bar in own],
            y=[text(bar.row) for bar in own],
            customdata=[_told(bar) for bar in own],
            hovertemplate="%{customdata}<extra></extra>",
            orientation="h",
            showlegend=False,
            marker={"color": colour, "line": {"width": 0}},
        )
    for start in found.starts[1:]:
        drawn.add_vline(x=start / unit, line={"dash": "dot", "color": COLOURS[3], "width": 1})
    drawn.update_layout(height=110 + min(26 * len(found.rows), ROWS_HEIGHT), barmode="overlay", bargap=0.25)
    drawn.update_yaxes(categoryorder="array", categoryarray=[text(row) for row in found.rows])
    return drawn


def _told(bar: Bar) -> str:
    began = datetime.fromtimestamp(bar.clock).strftime("%Y-%m-%d %H:%M:%S")
    tasks = "" if bar.tasks == 1 else f"{bar.tasks} tasks, "
    done = f"{counted(bar.trials, 'trial')}, {counted(bar.epochs, 'epoch')}"
    return f"{text(bar.worker)}<br>{began}, {bar.seconds:.1f} s<br>{tasks}{done}"


def section(run: Run) -> PageSection:
    """Workers and sessions; LeftOutError if there is no work log."""
    found = collect(load_work(run.workdir))
    if not found.bars:
        raise LeftOutError(
            "The workers' log (trials/work.csv) is missing or empty: `headhunt search run` writes it while training."
        )
    epochs = sum(each.epochs for each in found.sessions)
    told = (
        f"The workers were busy for {share(found.busy)} of the time, and {found.trials_per_minute:.1f} trials ended per minute. "
        f"A bar is a task: trials of one structure up to the next rung; {counted(len(found.bars), 'task')} trained "
        f"{counted(epochs, 'epoch')}. Tasks include compilation; between tasks a worker "
        "waits for the rest of its generation and for the driver."
    )
    if len(found.bars) > BARS:
        told += f" Neighbouring bars with the smallest gaps are joined, to show at most {BARS:,}."
    if len(found.sessions) > 1:
        told += " The time between sessions is left out; a dotted line marks where the search was resumed."
    rows = [
        [
            datetime.fromtimestamp(each.begin).strftime("%Y-%m-%d %H:%M"),
            f"{each.seconds / 60:.1f}",
            str(each.workers),
            share(each.busy),
            str(each.trials),
            f"{60 * each.trials / each.seconds:.1f}" if each.seconds else "–",
        ]
        for each in found.sessions
    ]
    columns = ["session began", "minutes", "workers", "busy", "trials ended", "trials per minute"]
    return PageSection("workers", "Workers", told, {"workers": draw(found)}, [Table(columns, rows, {1, 2, 3, 4, 5})])
