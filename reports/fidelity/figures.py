"""The figures of the fidelity study, drawn from its results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from reports.fidelity.artifact import FidelityResults, Interval, MeasuredWay
from reports.style import COLOURS, SHARES, figure, text

if TYPE_CHECKING:
    import plotly.graph_objects as go

DASHES = {"rotation": "solid", "per_image": "dot"}
DRAWS = {"rotation": "in rotation", "per_image": "per image"}


class Line(NamedTuple):
    """One way to draw views: the numbers of copies as text ("1" to "fresh"), with a value and interval for each."""

    policy: str
    clean_share: float
    draw: str
    copies: list[str]
    values: list[float]
    above: list[float]
    below: list[float]


def lines(results: FidelityResults, value: str) -> Iterator[Line]:
    """The lines for a value. `accuracy` is the mean over configurations, as a share, with the interval of its gap to fresh views;
    `spearman` is the correlation with fresh views."""
    ranked = {row.way: row.spearman for row in results.ranking if (row.what, row.against) == ("views", "fresh")}
    ways = dict.fromkeys(
        (row.policy, row.clean_share, row.draw)
        for row in results.views
        if row.policy is not None and row.copies and not row.fresh
    )
    draws = {draw for _, _, draw in ways}
    policies = dict.fromkeys(policy for policy, _, _ in ways)
    for policy, share, draw in sorted(
        ways, key=lambda way: (list(policies).index(way[0]), way[1], way[2] != "rotation")
    ):
        rows = [
            row
            for row in results.views
            if (row.policy, row.clean_share) == (policy, share) and (row.draw == draw or row.copies == 1 or row.fresh)
        ]
        if draw == "rotation" and "per_image" in draws and all(row.copies == 1 or row.fresh for row in rows):
            continue  # the single copy is part of the other draw's line
        found = [_at(row, ranked[row.key], value) for row in sorted(rows, key=lambda row: row.copies)]
        found = [each for each in found if each is not None]
        copies, values, low, high = map(list, zip(*found, strict=True)) if found else ([], [], [], [])
        yield Line(
            policy,
            share,
            draw,
            copies,
            values,
            [b - v for v, b in zip(values, high, strict=True)],
            [v - a for v, a in zip(values, low, strict=True)],
        )


def _at(row: MeasuredWay, spearman: Interval, value: str) -> tuple[str, float, float, float] | None:
    copies = "fresh" if row.fresh else str(row.copies)
    if value == "accuracy":
        mean, gap = row.mean_accuracy, row.gap_points
        if row.fresh or gap.value is None or gap.low is None or gap.high is None:
            return copies, mean, mean, mean
        shift = mean + gap.value / 100
        low, high = (min(max(shift - end / 100, 0.0), 1.0) for end in (gap.high, gap.low))  # accuracies, like `mean`
        return copies, mean, low, high
    if row.fresh or spearman.value is None or spearman.low is None or spearman.high is None:
        return None
    return copies, spearman.value, spearman.low, spearman.high


def draw_lines(results: FidelityResults, policy: str, value: str) -> go.Figure:
    """A line for each share of clean views and each draw of a policy, over the number of cached copies."""
    is_accuracy = value == "accuracy"
    drawn = figure(
        "cached augmented views",
        "mean accuracy" if is_accuracy else "Spearman with fresh views",
        **(SHARES if is_accuracy else {}),
    )
    found = list(lines(results, value))
    shares = sorted({line.clean_share for line in found})
    for line in found:
        if line.policy == policy:
            drawn.add_scatter(
                x=line.copies,
                y=line.values,
                mode="lines+markers",
                name=f"{100 * line.clean_share:.0f} % clean, {DRAWS[line.draw]}",
                line={"color": COLOURS[shares.index(line.clean_share)], "dash": DASHES[line.draw]},
                error_y={"type": "data", "array": line.above, "arrayminus": line.below, "thickness": 1, "width": 3},
            )
    order = sorted({row.copies for row in results.views if row.copies and not row.fresh})
    places = [*map(str, order), "fresh"]
    if is_accuracy:
        clean = next(row for row in results.views if not row.copies)
        drawn.add_scatter(
            x=places,
            y=[clean.mean_accuracy] * len(places),
            mode="lines",
            name="clean photos only",
            line={"color": "#1e293b", "width": 1.5, "dash": "dash"},
        )
    else:
        ends = [at - below for line in found for at, below in zip(line.values, line.below, strict=True)]
        drawn.update_yaxes(range=[min([0.5, *ends]) - 0.05, 1.05])
    drawn.update_xaxes(type="category", categoryorder="array", categoryarray=places)
    return drawn


def draw_agreement(results: FidelityResults) -> go.Figure:
    """A point for each configuration: its accuracy in the search against that with fresh views and after fine-tuning."""
    drawn = figure("accuracy in the search", "true accuracy", **SHARES)
    fresh = [(row, row.fresh) for row in results.trials]
    tuned = [(row, row.tuned) for row in results.trials if row.tuned is not None]
    for name, rows, symbol in (("fresh views", fresh, "circle"), ("fine-tuned", tuned, "diamond")):
        if rows:
            drawn.add_scatter(
                x=[row.own for row, _ in rows],
                y=[accuracy for _, accuracy in rows],
                mode="markers",
                name=name,
                marker={"size": 9, "symbol": symbol},
                customdata=[f"trial {row.trial}" for row, _ in rows],
                hovertemplate="%{customdata}: %{x:.1%} → %{y:.1%}",
            )
    ends = [min(row.own for row in results.trials), max(row.own for row in results.trials)]
    drawn.add_scatter(
        x=ends, y=ends, mode="lines", name="equal", line={"color": "#94a3b8", "dash": "dash"}, hoverinfo="skip"
    )
    drawn.update_xaxes(**SHARES)
    return drawn


def draw_cost(results: FidelityResults) -> go.Figure:
    """Hours by number of trials for the three ways; both axes are logarithmic."""
    drawn = figure("trials", "hours", type="log", dtick=1)
    table = results.cost.table
    for name, key in WAYS.items():
        drawn.add_scatter(
            x=[row.trials for row in table],
            y=[getattr(row, key) / 3600 for row in table],
            mode="lines+markers",
            name=text(name),
        )
    drawn.update_xaxes(type="log", dtick=1)
    return drawn


WAYS = {
    "through the network": "network",
    "from the notebooks' cache (2021)": "seed_cache",
    "from this cache": "own_cache",
}
"""The ways to run trials whose costs are compared, with their keys in the results."""
