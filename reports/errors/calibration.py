"""The calibration of the best promoted model: whether its confidence matches its accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reports.config import Run
from reports.errors.predictions import load_predictions
from reports.section import LeftOutError, PageSection
from reports.style import COLOURS, PERCENT, figure, share, whole_ticks
from train.evaluate import BINS, calibration_error, confidence_bins
from train.promotion.predictions import Predictions

if TYPE_CHECKING:
    import plotly.graph_objects as go


class ConfidenceBin(NamedTuple):
    """The test photos whose highest probability is in (low, high]: how many, how many are correct, and the mean probability."""

    low: float
    high: float
    photos: int
    right: int
    confidence: float


class Calibration(NamedTuple):
    """The expected calibration error, the accuracy and mean confidence over all photos, and every non-empty bin."""

    ece: float
    accuracy: float
    confidence: float
    bins: list[ConfidenceBin]


def collect(found: Predictions) -> Calibration:
    """The bins of `train.evaluate.calibration_error`, and its result; LeftOutError if a probability is not finite."""
    confidence, right = found.probabilities[:, 0], found.right
    if not np.isfinite(confidence).all():
        raise LeftOutError(
            f"Some probabilities of trial {found.trial} are not finite. Promote it again with a lower learning rate: "
            f"`headhunt train promote --trial {found.trial}`."
        )
    at = confidence_bins(confidence)
    bins = [
        ConfidenceBin(
            number / BINS,
            (number + 1) / BINS,
            int((at == number).sum()),
            int(right[at == number].sum()),
            float(confidence[at == number].mean()),
        )
        for number in np.unique(at).tolist()
    ]
    return Calibration(calibration_error(confidence, right), float(right.mean()), float(confidence.mean()), bins)


def draw(found: Calibration) -> go.Figure:
    """Accuracy by confidence with the diagonal (top), and the number of photos per bin (bottom)."""
    drawn = figure("confidence", "accuracy", tickformat=PERCENT, domain=[0.36, 1], range=[0, 1.02])
    centres = [(one.low + one.high) / 2 for one in found.bins]
    hover = [
        f"confidence {100 * one.low:.0f} to {share(one.high)}, mean {share(one.confidence)}<br>"
        f"{one.right} of {one.photos} correct: {share(one.right / one.photos)}"
        for one in found.bins
    ]
    drawn.add_bar(
        x=centres,
        y=[one.right / one.photos for one in found.bins],
        width=0.92 / BINS,
        name="accuracy of the bin",
        marker={"color": "#93b4f5"},
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
    )
    drawn.add_scatter(
        x=[one.confidence for one in found.bins],
        y=[one.confidence for one in found.bins],
        mode="markers",
        name="its mean confidence",
        marker={"color": COLOURS[1], "symbol": "diamond", "size": 8},
        hoverinfo="skip",
    )
    drawn.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        name="perfect calibration",
        line={"color": "#475569", "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
    )
    drawn.add_bar(
        x=centres,
        y=[one.photos for one in found.bins],
        width=0.92 / BINS,
        yaxis="y2",
        marker={"color": "#94a3b8"},
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
    )
    photos = whole_ticks([0, *(one.photos for one in found.bins)], 3)
    drawn.update_layout(height=500, yaxis2={"title": "photos", "domain": [0, 0.26], **photos})
    drawn.update_xaxes(anchor="y2", tickformat=PERCENT, range=[-0.02, 1.02])
    return drawn


def section(run: Run) -> PageSection:
    """The reliability diagram; LeftOutError if nothing is promoted."""
    found = load_predictions(run)
    measured = collect(found)
    gap = measured.confidence - measured.accuracy
    verdict = f"{100 * abs(gap):.1f} points {'more' if gap > 0 else 'less'} than"
    text = (
        f"The {found.stage} trial {found.trial} gives its first choice a mean probability of {share(measured.confidence)}, "
        f"{verdict} the {share(measured.accuracy)} of the test photos that it classifies correctly. Its expected calibration "
        f"error is {share(measured.ece)}: the absolute difference between accuracy and mean confidence, averaged over {BINS} "
        "bins of similar confidence, weighted by photos. Bars below the dashed line mean overconfidence."
    )
    return PageSection("calibration", "Calibration", text, {"calibration": draw(measured)})
