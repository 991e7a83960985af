"""The learning-rate schedules and learning curves of the leaders."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.dataset.index import load_index
from features.runtime.errors import HeadhuntError
from reports.config import Run
from reports.section import LeftOutError, PageSection, Table
from reports.study.ranked import ranked
from reports.style import COLOURS, SHARES, figure, rate_axis, share, text, whole_ticks
from search.config import SearchRun
from search.leaderboard import Leader
from search.ranking import best_place
from search.records import load_curves

if TYPE_CHECKING:
    import plotly.graph_objects as go

POINTS = 400
"""Maximum number of points of a learning-rate curve."""


class Rates(NamedTuple):
    """One leader's schedule: its name, positions in epochs and the rate at each."""

    name: str
    epochs: list[float]
    rates: list[float]


class Curves(NamedTuple):
    """One leader's curves: its name, the table of its epochs, and the epoch whose weights were kept."""

    name: str
    table: pd.DataFrame
    best_epoch: int


def collect_rates(run: SearchRun, leaders: list[Leader], train_images: int) -> list[Rates]:
    """The learning rate of every leader at every step (thinned to POINTS); hypermodels and linear probes are left out.

    The rates of a schedule that follows the validation loss are read from the leader's record: each epoch's rate at the beginning
    and end of the epoch. Such a leader is left out if it has no record.
    """
    found = []
    for leader in leaders:
        config = leader.config
        if config.hypermodel is not None or config.is_probe:
            continue
        if config.schedule.follows_loss:
            try:
                table = load_curves(run.workdir, leader.number)
            except HeadhuntError:
                continue
            edges = np.stack([table["epoch"] - 1, table["epoch"]], axis=1)
            found.append(Rates(_name(leader), edges.ravel().tolist(), np.repeat(table["learning_rate"], 2).tolist()))
            continue
        steps = max(1, train_images // config.batch_size)
        values = config.schedule.values(steps, config.epochs)
        shown = _corners(values)
        ends = [*(shown / steps).tolist(), len(values) / steps]  # the last rate holds to the end
        found.append(Rates(_name(leader), ends, [*values[shown].tolist(), float(values[-1])]))
    return found


def _corners(values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Positions of the rates (steps,) to draw: where the rate changes if these are at most POINTS, else POINTS evenly spaced."""
    changes = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
    if len(changes) <= POINTS:
        return changes
    return np.unique(np.linspace(0, len(values) - 1, POINTS).astype(np.int64))


def draw_rates(curves: list[Rates]) -> go.Figure:
    """A line for each leader, on a logarithmic scale: a rate holds until the next step."""
    drawn = figure("epoch", "learning rate", **rate_axis(rate for curve in curves for rate in curve.rates))
    drawn.update_xaxes(whole_ticks(epoch for curve in curves for epoch in curve.epochs))
    for curve in curves:
        drawn.add_scatter(x=curve.epochs, y=curve.rates, mode="lines", name=text(curve.name), line={"shape": "hv"})
    return drawn


def collect_curves(run: SearchRun, leaders: list[Leader]) -> list[Curves]:
    """The recorded epochs of every leader that has a record."""
    found = []
    for leader in leaders:
        try:
            table = load_curves(run.workdir, leader.number)
        except HeadhuntError:
            continue
        best = best_place(run.search.objective, table)
        found.append(Curves(_name(leader), table, int(table["epoch"].iloc[best])))
    return found


def left_out(run: SearchRun, leaders: list[Leader]) -> str:
    """A sentence for each leader whose record cannot be read."""
    said = []
    for leader in leaders:
        try:
            load_curves(run.workdir, leader.number)
        except HeadhuntError as error:
            said.append(f" Left out: {error}")
    return "".join(said)


def draw_curves(curves: list[Curves]) -> go.Figure:
    """Validation accuracy, training accuracy and their difference, stacked; each leader has one colour."""
    drawn = figure("epoch", "validation", **SHARES, domain=[0.7, 1])
    for curve, colour in zip(curves, COLOURS * 2, strict=False):
        table, name = curve.table, text(curve.name)
        panels = {"y": table["val_accuracy"], "y2": table["accuracy"], "y3": gaps(table)}
        for axis, values in panels.items():
            drawn.add_scatter(
                x=table["epoch"],
                y=values,
                mode="lines" if len(table) > 1 else "markers",  # one value makes no line
                name=name,
                legendgroup=name,
                showlegend=axis == "y",
                line={"color": colour},
                yaxis=axis,
                cliponaxis=False,
            )
    drawn.update_layout(
        height=700,
        yaxis2={"title": "training", **SHARES, "domain": [0.35, 0.65]},
        yaxis3={"title": "gap, points", "domain": [0, 0.3], "zerolinecolor": "#64748b"},
    )
    drawn.update_xaxes(anchor="y3", **whole_ticks(epoch for curve in curves for epoch in curve.table["epoch"]))
    return drawn


def gaps(table: pd.DataFrame) -> pd.Series[float]:
    """Training minus validation accuracy after each epoch, in percentage points."""
    return 100 * (table["accuracy"] - table["val_accuracy"])


def gap_table(curves: list[Curves]) -> Table:
    """The accuracies of each leader at its best epoch, and the gap between them."""
    rows = []
    for curve in curves:
        (place,) = np.flatnonzero(curve.table["epoch"] == curve.best_epoch)
        row = curve.table.iloc[place]
        gap = gaps(curve.table).iloc[place]
        rows.append(
            [
                curve.name,
                f"{curve.best_epoch} of {len(curve.table)}",
                share(row["val_accuracy"]),
                *((share(row["accuracy"]), f"{gap:+z.1f}") if np.isfinite(gap) else ("unknown", "unknown")),
            ]
        )
    return Table(["leader", "best epoch", "validation", "training", "gap, points"], rows, {1, 2, 3, 4})


def _name(leader: Leader) -> str:
    config = leader.config
    kind = config.hypermodel.function if config.hypermodel else config.schedule.kind
    return f"trial {leader.number} ({'linear probe' if config.is_probe else kind})"


def rates_section(run: Run) -> PageSection:
    """The leaders' schedules; LeftOutError if none is known."""
    sizes = load_index(run).table["split"].value_counts()
    best = ranked(run)
    curves = collect_rates(run, best.leaders, int(sizes["train"]))
    if not curves:
        if run.search.hypermodel is not None:
            raise LeftOutError("The leaders come from a hypermodel, which sets their learning rates itself.")
        raise LeftOutError(
            "No leader has a schedule with known rates: a linear probe has none, and rates that follow the validation loss are "
            "in the leader's curves, which `headhunt search run` writes."
        )
    following = [each for each in best.leaders if each.config.hypermodel is None and each.config.schedule.follows_loss]
    text = f"The leaders' learning rates, step by step.{best.order}{left_out(run, following)}"
    return PageSection("rates", "Learning rates", text, {"rates": draw_rates(curves)})


def curves_section(run: Run) -> PageSection:
    """The leaders' learning curves; LeftOutError if there are no records."""
    best = ranked(run)
    curves, faults = collect_curves(run, best.leaders), left_out(run, best.leaders)
    if not curves:
        raise LeftOutError(f"`headhunt search run` writes the leaders' curves.{faults}")
    text = (
        "Accuracy of the leaders on cached features: on the validation photos, and during training (with dropout) on each "
        "epoch's views of the training photos. The gap is training minus validation: it grows when a head overfits, and is "
        f"negative when dropout and augmentation make training the harder task.{best.order}{faults}"
    )
    drawn = {curve.name for curve in curves}
    if any(leader.config.is_probe and _name(leader) in drawn for leader in best.leaders):
        text += " The linear probe, which is solved, has one value, drawn at epoch 1."
    figures = {"curves": draw_curves(curves)}
    return PageSection("curves", "Learning curves", text, figures, [gap_table(curves)])
