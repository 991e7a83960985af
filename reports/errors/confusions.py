"""Which classes the best promoted model takes for which."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from reports.config import Run
from reports.errors.predictions import Predictions, load_predictions
from reports.section import PageSection, Table


class Confusion(NamedTuple):
    """`photos` of the `of` test photos of `truth` were taken for `predicted`."""

    truth: str
    predicted: str
    photos: int
    of: int


class Confusions(NamedTuple):
    """The promoted trial and its stage, how many of the test photos it names wrongly, and its most frequent confusions, worst
    first."""

    trial: int
    stage: str
    wrong: int
    photos: int
    worst: list[Confusion]


def collect(found: Predictions, top: int) -> Confusions:
    """The `top` most frequent pairs of a class and what it was taken for."""
    table = pd.DataFrame({"label": found.labels, "predicted": found.predicted[:, 0]})
    totals = table["label"].value_counts()
    wrong = table[~found.right]
    pairs = wrong.groupby(["label", "predicted"]).size().reset_index(name="count")
    worst = pairs.sort_values(["count", "label", "predicted"], ascending=[False, True, True]).head(top)
    pairs_named = [
        Confusion(found.class_names[label], found.class_names[predicted], int(count), int(totals[label]))
        for label, predicted, count in worst.itertuples(index=False)
    ]
    return Confusions(found.trial, found.stage, len(wrong), len(table), pairs_named)


def section(run: Run) -> PageSection:
    """The most frequent confusions; LeftOutError where nothing is promoted."""
    found = collect(load_predictions(run), run.reports.confusions)
    rows = [[pair.truth, pair.predicted, f"{pair.photos} of {pair.of}"] for pair in found.worst]
    text = (
        f"The {found.stage} trial {found.trial} takes {found.wrong:,} of the {found.photos:,} test photos for another class; the "
        "most frequent pairs first."
    )
    return PageSection("confusions", "Worst confusions", text, tables=[Table(["is", "taken for", "photos"], rows, {2})])
