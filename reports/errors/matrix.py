"""The confusion matrix of the best promoted model, with its classes ordered so that confusions are near the diagonal."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from features.runtime.log import counted
from reports.style import figure, shortened, text
from train.promotion.predictions import Predictions

if TYPE_CHECKING:
    import plotly.graph_objects as go

CLASSES = 200
"""Maximum number of classes drawn; of more, those with the most misclassified photos."""

COUNTED = 12
"""Maximum number of classes for which cells show their counts and the matrix adapts to the page width, e.g. on a phone."""

SIDE = 640
"""Minimum side in pixels of a matrix of more classes, which scrolls in its own box."""

CELL = 14
"""Minimum side of a cell in pixels: the height of a name."""

LABEL = 16
"""Letters of a line of a class name beside the matrix, which has as many lines as its cell on a phone; the rest is cut off. The
hover text has the full name."""


class ConfusionMatrix(NamedTuple):
    """`counts` (classes, classes): test photos by true class (rows) and predicted class (columns), in the order of `names`.
    `classes` is the number of all classes, of which these are the most confused."""

    names: list[str]
    counts: npt.NDArray[np.int64]
    classes: int


def collect(found: Predictions) -> ConfusionMatrix:
    """Counts the test photos and orders the classes."""
    classes = len(found.class_names)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (found.labels, found.predicted[:, 0]), 1)
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-wrong, kind="stable")[:CLASSES])
    shown = shown[near_the_diagonal(counts[np.ix_(shown, shown)])]
    return ConfusionMatrix([found.class_names[label] for label in shown], counts[np.ix_(shown, shown)], classes)


def near_the_diagonal(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """An order of the classes of a confusion matrix in which classes that are confused with each other are adjacent: (classes,).

    Average linkage of classes by the share of their photos that are confused, its leaves in the optimal order (Bar-Joseph et al.,
    "Fast optimal leaf ordering for hierarchical clustering", 2001). Unchanged if nothing is confused.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    between = (counts + counts.T).astype(np.float64)
    np.fill_diagonal(between, 0.0)
    if len(counts) < 3 or not between.any():
        return np.arange(len(counts))
    photos = counts.sum(1)
    shares = between / np.maximum(photos[:, None] + photos[None, :], 1)
    distances = squareform(1 - shares / shares.max(), checks=False)
    order: npt.NDArray[np.int64] = leaves_list(linkage(distances, "average", optimal_ordering=True)).astype(np.int64)
    return order if order[0] < order[-1] else order[::-1]


def _lines(name: str, most: int) -> list[str]:
    """A name in at most `most` lines of LABEL letters, or as many more as it needs."""
    tried = (wrap(name, letters) for letters in range(LABEL, LABEL + len(name) + 1))
    return next(lines for lines in tried if len(lines) <= most)


def draw(found: ConfusionMatrix) -> go.Figure:
    """A heat map of shares of each true class, with names and counts on hover; correct predictions are blue, wrong ones red."""
    classes, names = len(found.names), [text(name) for name in found.names]
    shares = found.counts / np.maximum(found.counts.sum(1, keepdims=True), 1)
    right = np.eye(classes, dtype=bool)
    drawn = figure("predicted class", "true class", type="category", autorange="reversed", showgrid=False)
    for where, colours, top in ((right, ("#eff6ff", "#2563eb"), 1.0), (~right, ("#fee2e2", "#b91c1c"), None)):
        cells = np.where(where & ((found.counts > 0) | right), shares, np.nan)
        if not np.isfinite(cells).any():
            continue
        drawn.add_heatmap(
            x=names,
            y=names,
            z=[[None if np.isnan(cell) else round(float(cell), 4) for cell in row] for row in cells],
            customdata=[[counted(int(count), "photo") for count in row] for row in found.counts],
            colorscale=[[0, colours[0]], [1, colours[1]]],
            zmin=0,
            zmax=top or max(float(np.nanmax(cells)), 1e-9),
            showscale=False,
            hoverongaps=False,
            xgap=1,
            ygap=1,
            hovertemplate="true: %{y}<br>predicted: %{x}<br>%{customdata}, %{z:.1%} of the class<extra></extra>",
            text=np.where(np.isnan(cells), "", found.counts.astype(str)).tolist() if classes <= COUNTED else None,
            texttemplate="%{text}" if classes <= COUNTED else None,
        )
    lines = max(1, COUNTED // classes)
    cut = ["<br>".join(map(text, _lines(name, lines))) for name in shortened(found.names, LABEL * lines)]
    labels = {"tickvals": names, "ticktext": cut, "tickfont": {"size": 10}}
    drawn.update_yaxes(**labels)
    drawn.update_xaxes(type="category", showgrid=False, **labels, autotickangles=[0, -90])  # -90 if they would overlap
    if classes <= COUNTED:
        drawn.update_layout(height=150 + max(CELL * COUNTED, 30 * classes))
    else:
        side = 150 + max(SIDE, CELL * classes)
        drawn.update_layout(height=side, width=side)
    return drawn
