"""The rank of the true class among the model's predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from reports.style import figure, share, whole_ticks
from train.evaluate import TOP
from train.promotion.predictions import Predictions

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLACES = ("first", "second", "third", "fourth", "fifth")


class TruthRanks(NamedTuple):
    """How many of the `photos` have the true class as their `first`, …, `fifth` most probable class, or `beyond` these.

    With at most 5 classes, the place `beyond` does not exist.
    """

    photos: int
    places: list[str]
    counts: list[int]


def collect(found: Predictions) -> TruthRanks:
    """Counts over all test photos."""
    at = found.predicted == found.labels[:, None]
    counts = at.sum(0).tolist()
    places = list(PLACES[: len(counts)])
    if len(found.class_names) > TOP:
        places, counts = [*places, "beyond"], [*counts, int((~at.any(1)).sum())]
    return TruthRanks(len(found.labels), places, counts)


def draw(ranks: TruthRanks) -> go.Figure:
    """A bar for each place, labelled with its number and share of photos."""
    drawn = figure("rank of the true class", "test photos")
    drawn.add_bar(
        x=ranks.places,
        y=ranks.counts,
        text=[f"{count}<br>{share(count / ranks.photos)}" for count in ranks.counts],
        textposition="outside",
        cliponaxis=False,
        textfont={"size": 11},
        hoverinfo="skip",
    )
    drawn.update_yaxes(whole_ticks([0, *ranks.counts]))
    drawn.update_layout(height=300, margin={"t": 30}, bargap=0.3, uniformtext={"minsize": 9, "mode": "show"})
    return drawn
