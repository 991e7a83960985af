"""The classes that the best promoted model confuses."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from reports.config import Run
from reports.errors import matrix, two_classes
from reports.errors.predictions import load_predictions
from reports.section import Block, PageSection, Table
from train.promotion.predictions import Predictions


class Confusion(NamedTuple):
    """`photos` of the `of` test photos of class `truth` were predicted as `predicted`."""

    truth: str
    predicted: str
    photos: int
    of: int


class Confusions(NamedTuple):
    """The promoted trial and its stage, how many of the test photos it misclassifies, and its most frequent confusions, worst
    first."""

    trial: int
    stage: str
    wrong: int
    photos: int
    worst: list[Confusion]


def collect(found: Predictions, top: int) -> Confusions:
    """The `top` most frequent pairs of a true and a wrongly predicted class."""
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
    """The confusion matrix and the most frequent confusions; for two classes also their curves. LeftOutError if nothing is
    promoted."""
    predictions = load_predictions(run)
    found, shown = collect(predictions, run.reports.confusions), matrix.collect(predictions)
    rows = [[pair.truth, pair.predicted, f"{pair.photos} of {pair.of}"] for pair in found.worst]
    text = (
        f"The {found.stage} trial {found.trial} misclassifies {found.wrong:,} of the {found.photos:,} test photos. Rows of the "
        "matrix are true classes, columns predicted ones: correct predictions are blue, wrong ones red; darker means a larger "
        "share of the true class. Classes that are confused with each other are adjacent; columns are in the same order as rows."
    )
    if len(shown.names) < shown.classes:
        text += f" Of the {shown.classes} classes the {len(shown.names)} with the most misclassified photos are shown."
    worst = Block(
        "Worst confusions",
        "The most frequent pairs first.",
        tables=[Table(["true class", "predicted", "photos"], rows, {2})],
    )
    figures = {"confusion-matrix": matrix.draw(shown)}
    return PageSection("confusions", "Confusions", text, figures, blocks=[*two_classes.blocks(predictions), worst])
