"""The confirmed leaders: the mean of each over several seeds with its interval, compared with its value in the search."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from reports.config import Run
from reports.section import LeftOutError, PageSection, Table
from reports.style import COLOURS, SHARES, figure, share
from search.config import SearchRun
from search.confirm.ranking import Confirmed, load_confirmation, unused_confirmation
from search.confirm.table import show_interval, show_p
from search.first_trials import label_of
from search.leaderboard import leaders
from search.metric import Metric, is_share

if TYPE_CHECKING:
    import plotly.graph_objects as go


class ConfirmedLeaders(NamedTuple):
    """The trials whose seeds all completed, best mean first, and the failed ones."""

    ranked: list[Confirmed]
    failed: list[Confirmed]
    seeds: int


def collect(run: SearchRun) -> ConfirmedLeaders | None:
    """The run's confirmation; None if there is none for the current study."""
    found = load_confirmation(run, leaders(run))
    if found is None:
        return None
    return ConfirmedLeaders(
        [each for each in found.confirmed if each.failure is None],
        [each for each in found.confirmed if each.failure is not None],
        len(found.confirmed[0].seeds),
    )


def draw(found: ConfirmedLeaders, objective: Metric) -> go.Figure:
    """A row for each trial, best on top: its mean with interval, the value of every seed, and its value in the search."""
    shares = is_share(objective)
    ranked = found.ranked[::-1]
    intervals = [each.interval for each in ranked]
    names = [f"trial {label_of(each.number, each.first)}" for each in ranked]
    drawn = figure(objective.replace("_", " "), "", automargin=True)
    values = [(value, name) for each, name in zip(ranked, names, strict=True) for value in each.values]
    drawn.add_scatter(
        x=[value for value, _ in values],
        y=[name for _, name in values],
        mode="markers",
        name="each seed",
        marker={"color": COLOURS[0], "opacity": 0.35, "size": 8},
    )
    drawn.add_scatter(
        x=[each.mean for each in ranked],
        y=names,
        mode="markers",
        name="mean, 95 % interval",
        marker={"color": COLOURS[0], "size": 10},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [interval and interval.high - interval.mean for interval in intervals],
            "arrayminus": [interval and interval.mean - interval.low for interval in intervals],
        },
    )
    drawn.add_scatter(
        x=[each.searched for each in ranked],
        y=names,
        mode="markers",
        name="as searched",
        marker={"color": COLOURS[1], "symbol": "diamond-open", "size": 10},
    )
    drawn.update_layout(height=140 + 34 * len(ranked))
    if shares:
        drawn.update_xaxes(**SHARES)
    return drawn


def section(run: Run) -> PageSection:
    """The ranking over several seeds; LeftOutError if there is none for the current leaders."""
    found = collect(run)
    if found is None:
        why = unused_confirmation(run) or "These leaders have not been confirmed over several seeds."
        raise LeftOutError(f"{why} Run `headhunt search confirm`.")
    show = share if is_share(run.search.objective) else "{:.4f}".format
    rows = [
        [
            label_of(row.number, row.first),
            show(row.mean or 0.0),
            show_interval(row, show),
            show_p(row.p_value),
            show(row.searched),
        ]
        for row in found.ranked
    ]
    rows += [
        [label_of(row.number, row.first), "failed", f"{row.failure}", "", show(row.searched)] for row in found.failed
    ]
    columns = ["trial", "mean", "95 % interval", "p", "as searched"]
    compared = (
        "p: the probability of the best being this far ahead if the trials did not differ, the larger of Tukey's test and a "
        "paired t-test, corrected for choosing the best and for the number of comparisons. A large p does not mean that two "
        "trials are equal: few seeds show only large differences. "
    )
    text = (
        f"The leaders, each retrained with {found.seeds} seeds. As searched: the single-seed value that each was chosen by, "
        f"which favours lucky seeds. {compared if len(found.ranked) > 1 else ''}Intervals are over seeds, not over other photos; "
        "a linear probe does not depend on the seed."
    )
    figures = {"confirmed": draw(found, run.search.objective)}
    return PageSection("confirmed", "Confirmed leaders", text, figures, [Table(columns, rows, {1, 3, 4})])
