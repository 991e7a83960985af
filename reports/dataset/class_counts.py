"""The number of photos per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from features.dataset.index import SPLITS, DatasetIndex
from reports.style import figure, shortened, text, whole_ticks

if TYPE_CHECKING:
    import plotly.graph_objects as go

BARS = 60
"""Maximum number of classes with a bar each; for more, the figure is a histogram of class sizes."""

BINS = 30
"""Maximum number of bars of the histogram."""

LABEL = 20
"""Maximum letters of a class name beside its bar; the hover text has the full name."""


class ClassCounts(NamedTuple):
    """Class names and their numbers of photos, largest class first; `splits` has the numbers by split, in the same order."""

    names: list[str]
    totals: list[int]
    splits: dict[str, list[int]]


def collect(index: DatasetIndex) -> ClassCounts:
    """Counts from the index; classes of equal size stay in label order."""
    labels, classes = index.table["label"].to_numpy(np.int64), len(index.class_names)
    totals = np.bincount(labels, minlength=classes)
    order = np.argsort(-totals, kind="stable")
    by_split = {
        split: np.bincount(index.of_split(split)["label"].to_numpy(np.int64), minlength=classes)[order].tolist()
        for split in SPLITS
    }
    return ClassCounts([index.class_names[label] for label in order], totals[order].tolist(), by_split)


def draw(counts: ClassCounts) -> go.Figure:
    """A stacked bar of splits for each class; for more than BARS classes, a histogram of class sizes."""
    return _bars(counts) if len(counts.names) <= BARS else _histogram(counts.totals)


def _bars(counts: ClassCounts) -> go.Figure:
    places = list(range(len(counts.names)))
    drawn = figure("photos", "", automargin=True, autorange="reversed")
    for split, photos in counts.splits.items():
        drawn.add_bar(
            x=photos,
            y=places,
            orientation="h",
            name=split,
            customdata=[text(name) for name in counts.names],
            hovertemplate="%{customdata}: %{x}",
        )
    labels = [text(name) for name in shortened(counts.names, LABEL)]
    drawn.update_yaxes(tickvals=places, ticktext=labels, tickfont={"size": 11}, showgrid=False)
    drawn.update_xaxes(whole_ticks([0, *counts.totals]))
    drawn.update_layout(barmode="stack", bargap=0.25, height=110 + 19 * len(places), legend={"traceorder": "normal"})
    return drawn


def _histogram(totals: list[int]) -> go.Figure:
    """Histogram of class sizes, with integer bin widths."""
    low, high = min(totals), max(totals)
    width = -(-(high - low + 1) // BINS)
    edges = np.arange(low, high + width + 1, width)
    heights, _ = np.histogram(totals, edges)
    drawn = figure("photos per class", "classes")
    ranges = [f"{a}" if width == 1 else f"{a} to {a + width - 1}" for a in edges[:-1].tolist()]
    drawn.add_bar(
        x=(edges[:-1] + (width - 1) / 2).tolist(),
        y=heights.tolist(),
        width=width * 0.92,
        customdata=ranges,
        hovertemplate="%{customdata} photos: %{y} classes<extra></extra>",
    )
    drawn.update_xaxes(whole_ticks(edges.tolist()))
    drawn.update_yaxes(whole_ticks([0, *heights.tolist()]))
    return drawn
