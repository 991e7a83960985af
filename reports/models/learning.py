"""Curves of a model that learned in parts, each from the weights of an earlier epoch: phases of a promotion, or a resumed run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from reports.style import COLOURS, SHARES, figure, rate_axis, text, whole_ticks
from search.metric import Metric
from search.ranking import best_place

if TYPE_CHECKING:
    import plotly.graph_objects as go

MEASURES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")

MARKED = 30
"""Maximum number of epochs with individual markers."""

CHOSEN_BY: dict[Metric, str] = {
    "val_accuracy": "highest validation accuracy",
    "val_top5_accuracy": "highest validation top-5 accuracy",
    "val_loss": "accuracy at the lowest validation loss",
}
"""Label of the best epoch's marker, by objective."""

NARROW = 0.2
"""A part with a smaller share of the epochs is too narrow for a label other than its number."""


class LearningCurve(NamedTuple):
    """The epochs of one model, a row each: `epoch`, `part` (from 1), `thrown_away`, and MEASURES (NaN if not recorded).

    Epochs are counted along the weights that became the model. Epochs that were discarded, because the next part resumed from an
    earlier one, are in the table too: in a resumed run their numbers occur twice.
    """

    name: str
    table: pd.DataFrame
    objective: Metric = "val_accuracy"
    """The metric that chose the best epoch; also a column of the table."""

    @property
    def kept(self) -> pd.DataFrame:
        """The epochs that led to the model, in order."""
        return self.table[~self.table["thrown_away"]].sort_values("epoch")

    @property
    def best(self) -> pd.Series[Any]:
        """The kept epoch that is best by the objective; ties are broken by the lowest loss."""
        kept = self.kept
        return kept.iloc[best_place(self.objective, kept)]

    @property
    def lowest_loss(self) -> pd.Series[Any]:
        """The kept epoch with the lowest validation loss; the first if tied."""
        kept = self.kept
        return kept.iloc[int(np.nanargmin(kept["val_loss"]))]

    @property
    def starts(self) -> list[int]:
        """The first epoch of each part."""
        return self.table.groupby("part")["epoch"].min().astype(int).tolist()


def draw(curve: LearningCurve, part: str) -> go.Figure:
    """Accuracy, loss and learning rate over the same epochs, stacked; `part` is the word for a part.

    Discarded epochs are faint. The axis of the learning rate is left out if there are no rates.
    """
    whole = curve.table
    rated = bool(whole["learning_rate"].notna().any())
    accuracy, loss = ([0.58, 1], [0.25, 0.51]) if rated else ([0.42, 1], [0, 0.34])
    drawn = figure("epoch", "accuracy", **SHARES, domain=accuracy)
    drawn.update_layout(height=580 if rated else 480, yaxis2={"title": "loss", "domain": loss, "nticks": 5})
    if rated:
        drawn.update_layout(yaxis3={"title": "rate", "domain": [0, 0.18], **rate_axis(whole["learning_rate"], most=4)})
    for column, name, axis, colour in (
        ("val_accuracy", "validation", "y", COLOURS[0]),
        ("accuracy", "training", "y", COLOURS[1]),
        ("val_loss", "validation", "y2", COLOURS[0]),
        ("loss", "training", "y2", COLOURS[1]),
        *([("learning_rate", "learning rate", "y3", COLOURS[8])] if rated else []),
    ):
        shape = (
            "vh" if column == "learning_rate" else "linear"
        )  # an epoch's rate holds from the end of the previous one
        _draw_measure(drawn, curve, column, {"name": name, "yaxis": axis, "line": {"color": colour, "shape": shape}})
    for name, row, column, axis, symbol in (
        (CHOSEN_BY[curve.objective], curve.best, "val_accuracy", "y", "star"),
        ("lowest validation loss", curve.lowest_loss, "val_loss", "y2", "diamond"),
    ):
        drawn.add_scatter(
            x=[row["epoch"]],
            y=[row[column]],
            yaxis=axis,
            mode="markers",
            name=name,
            marker={"symbol": symbol, "size": 13 if symbol == "star" else 10, "color": COLOURS[3]},
            hoverinfo="skip",
            cliponaxis=False,
        )
    _draw_starts(drawn, curve, part, int(whole["epoch"].max()))
    low, high = whole["epoch"].min(), whole["epoch"].max()
    margin = 0.03 * max(1, high - low)
    drawn.update_xaxes(anchor="y3" if rated else "y2", range=[low - margin, high + margin], **whole_ticks([low, high]))
    drawn.update_yaxes(range=_range(whole, "accuracy", "val_accuracy", most=1.0), selector={"title.text": "accuracy"})
    drawn.update_yaxes(range=_range(whole, "loss", "val_loss"), selector={"title.text": "loss"})
    return drawn


def draw_together(curves: Sequence[LearningCurve]) -> go.Figure:
    """The validation accuracy of several models, with the best epoch of each."""
    drawn = figure("epoch", "validation accuracy", **SHARES)
    drawn.update_xaxes(whole_ticks(epoch for curve in curves for epoch in curve.table["epoch"]))
    for curve, colour in zip(curves, COLOURS * 10, strict=False):
        kept, best, name = curve.kept, curve.best, text(curve.name)
        drawn.add_scatter(
            x=kept["epoch"],
            y=kept["val_accuracy"],
            mode="lines",
            name=name,
            legendgroup=name,
            line={"color": colour},
        )
        drawn.add_scatter(
            x=[best["epoch"]],
            y=[best["val_accuracy"]],
            mode="markers",
            name=name,
            legendgroup=name,
            showlegend=False,
            marker={"symbol": "star", "size": 12, "color": colour},
            cliponaxis=False,
        )
    return drawn


def _draw_measure(drawn: go.Figure, curve: LearningCurve, column: str, look: dict[str, Any]) -> None:
    """The line of the kept epochs, and a faint line for each sequence of discarded ones."""
    kept = curve.kept
    mode = "lines+markers" if len(kept) <= MARKED else "lines"
    drawn.add_scatter(
        x=kept["epoch"], y=kept[column], mode=mode, marker={"size": 5}, showlegend=look["yaxis"] == "y", **look
    )
    x: list[float | None] = []
    y: list[float | None] = []
    for part, gone in curve.table[curve.table["thrown_away"]].groupby("part"):
        before = kept[(kept["part"] <= part) & (kept["epoch"] < gone["epoch"].min())].tail(1)
        line = pd.concat([before, gone])
        x += [*line["epoch"], None]
        y += [*line[column], None]
    if x:
        named = column == "val_accuracy"
        look = {**look, "name": "discarded" if named else look["name"], "showlegend": named}
        drawn.add_scatter(x=x, y=y, mode=mode, opacity=0.35, marker={"size": 4}, hoverinfo="skip", **look)


def _draw_starts(drawn: go.Figure, curve: LearningCurve, part: str, last: int) -> None:
    """A vertical line at the start of each part but the first, and the number of every part if there are several."""
    starts = curve.starts
    narrow = min(np.diff([*starts, last]), default=0) < NARROW * last
    for number, start in enumerate(starts, 1):
        if number > 1:
            line = {"color": "#94a3b8", "width": 1, "dash": "dash"}
            drawn.add_shape(type="line", x0=start - 0.5, x1=start - 0.5, y0=0, y1=1, yref="paper", line=line)
        if len(starts) > 1:
            drawn.add_annotation(
                x=start - 0.5 if number > 1 else start,
                y=1,
                yref="paper",
                text=str(number) if narrow else f"{part} {number}",
                showarrow=False,
                xanchor="left",
                yanchor="top",
                font={"size": 11, "color": "#64748b"},
            )


def _range(table: pd.DataFrame, *columns: str, most: float = math.inf) -> list[float]:
    """The range of the values with a margin (larger at the top, for the numbers of the parts), clipped to 0 and `most`."""
    values = table[list(columns)].to_numpy(np.float64)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    span = max(high - low, 1e-3)
    return [max(low - 0.05 * span, 0.0), min(high + 0.12 * span, most)]
