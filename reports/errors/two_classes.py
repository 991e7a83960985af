"""ROC and precision-recall curves, for data sets of two classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from reports.section import Block
from reports.style import COLOURS, PERCENT, figure, share
from train.promotion.predictions import Predictions

if TYPE_CHECKING:
    import plotly.graph_objects as go

POINTS = 1000
"""Maximum number of points of a curve on the page."""


class Curves(NamedTuple):
    """The curves over every threshold of the probability of the class `positive`, highest threshold first; each array is
    (points,) float64. The first point selects no photos: rates and recall are 0, precision is 1.

    `area` is the area under the ROC curve, `precision_average` the average precision, `positives` the share of the class.
    """

    positive: str
    false_positive_rate: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    area: float
    precision_average: float
    positives: float


def collect(found: Predictions, positive: int) -> Curves | None:
    """The curves of one of two classes; None unless there are exactly two classes, test photos of both, and finite
    probabilities."""
    if len(found.class_names) != 2 or not np.isfinite(found.probabilities).all():
        return None
    truth = found.labels == positive
    if truth.all() or not truth.any():
        return None
    scores = np.where(found.predicted == positive, found.probabilities, 0.0).sum(1)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of the photos with equal probability
    hits = np.append(0, np.cumsum(truth[order])[last])
    named = np.append(0, last + 1)
    recall = hits / truth.sum()
    fallout = (named - hits) / (~truth).sum()
    precision = np.append(1.0, hits[1:] / named[1:])
    return Curves(
        found.class_names[positive],
        fallout,
        recall,
        precision,
        float(np.trapezoid(recall, fallout)),
        float((np.diff(recall) * precision[1:]).sum()),
        float(truth.mean()),
    )


def draw_roc(found: Curves) -> go.Figure:
    """The true positive rate over the false positive rate, with the diagonal of random guessing."""
    return _draw(
        "false positive rate", "true positive rate", (found.false_positive_rate, found.recall), ([0, 1], [0, 1])
    )


def draw_precision(found: Curves) -> go.Figure:
    """Precision over recall, with the line of random guessing; precision is drawn as steps, each up to its threshold's recall."""
    return _draw("recall", "precision", (found.recall, found.precision), ([0, 1], [found.positives] * 2), "vh")


def _draw(
    title_x: str,
    title_y: str,
    curve: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    guess: tuple[list[float], list[float]],
    shape: str = "linear",
) -> go.Figure:
    drawn = figure(title_x, title_y, tickformat=PERCENT, range=[-0.02, 1.03])
    shown = np.unique(np.linspace(0, len(curve[0]) - 1, POINTS).astype(int))
    drawn.add_scatter(
        x=guess[0], y=guess[1], mode="lines", name="random guessing", line={"color": "#94a3b8", "dash": "dash"}
    )
    drawn.add_scatter(
        x=curve[0][shown], y=curve[1][shown], mode="lines", name="the model", line={"color": COLOURS[0], "shape": shape}
    )
    drawn.update_xaxes(tickformat=PERCENT, range=[-0.02, 1.03])
    return drawn


def blocks(found: Predictions) -> list[Block]:
    """Both curves with their areas; empty unless `collect` gives curves for both classes."""
    curves, others = collect(found, 1), collect(found, 0)
    if curves is None or others is None:
        return []
    text = (
        f"Curves over all thresholds of the probability of {curves.positive}, the class of {share(curves.positives)} of the "
        f"test photos. The area under the ROC curve is {curves.area:.3f}; the average precision is "
        f"{curves.precision_average:.3f}, and {others.precision_average:.3f} with {others.positive} as the positive class."
    )
    figures = {"roc": draw_roc(curves), "precision-recall": draw_precision(curves)}
    return [Block("ROC and precision-recall curves", text, figures)]
