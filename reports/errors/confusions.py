"""Which classes the best promoted model takes for which."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from reports.config import Run
from reports.errors import matrix, two_classes
from reports.errors.predictions import load_predictions
from reports.section import Block, PageSection, Table
from train.promotion.predictions import Predictions


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
    """The confusion matrix and the most frequent confusions; for two classes also their curves. LeftOutError where nothing is
    promoted."""
    predictions = load_predictions(run)
    found, shown = collect(predictions, run.reports.confusions), matrix.collect(predictions)
    rows = [[pair.truth, pair.predicted, f"{pair.photos} of {pair.of}"] for pair in found.worst]
    text = (
        f"The {found.stage} trial {found.trial} takes {found.wrong:,} of the {found.photos:,} test photos for another class. In "
        "the matrix a row is a true class and a column what its photos are taken for: blue what is right, red what is not, the "
        "darker, the larger the share of its class. Classes that are taken for each other are neighbours; "
        "columns are in the order of the rows."
    )
    if len(shown.names) < shown.classes:
        text += f" Of the {shown.classes} classes the {len(shown.names)} with the most wrong photos are drawn."
    worst = Block(
        "Worst confusions", "The most frequent pairs first.", tables=[Table(["is", "taken for", "photos"], rows, {2})]
    )
    figures = {"confusion-matrix": matrix.draw(shown)}
    return PageSection("confusions", "Confusions", text, figures, blocks=[*two_classes.blocks(predictions), worst])
