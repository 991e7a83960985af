"""Which classes the best promoted model takes for which."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from features.dataset import load_index
from reports.config import Run
from reports.section import LeftOutError, PageSection, Table
from train.config import TrainRun
from train.promotion.promote import promoted
from train.promotion.worker import promotion_folder


class Confusion(NamedTuple):
    """`photos` of the `of` test photos of `truth` were taken for `predicted`."""

    truth: str
    predicted: str
    photos: int
    of: int


class Confusions(NamedTuple):
    """The promoted trial, how many of the test photos it names wrongly, and its most frequent confusions, the worst first."""

    trial: int
    wrong: int
    photos: int
    worst: list[Confusion]


def collect(run: TrainRun, class_names: tuple[str, ...], top: int) -> Confusions:
    """The `top` confusions of the best promoted model on the test split."""
    number = promoted(run)[0]
    table = pd.read_csv(promotion_folder(run, number) / "predictions.csv").query("split == 'test'")
    totals = table["label"].value_counts()
    wrong = table[table["label"] != table["predicted_1"]]
    pairs = wrong.groupby(["label", "predicted_1"]).size().reset_index(name="count")
    worst = pairs.sort_values(["count", "label", "predicted_1"], ascending=[False, True, True]).head(top)
    pairs_named = [
        Confusion(class_names[label], class_names[predicted], int(count), int(totals[label]))
        for label, predicted, count in worst.itertuples(index=False)
    ]
    return Confusions(number, len(wrong), len(table), pairs_named)


def section(run: Run) -> PageSection:
    """The most frequent confusions; LeftOutError where nothing is promoted."""
    if not promoted(run):
        raise LeftOutError("Confusions are those of a promoted model: `headhunt train promote`.")
    found = collect(run, load_index(run).class_names, run.reports.confusions)
    rows = [[pair.truth, pair.predicted, f"{pair.photos} of {pair.of}"] for pair in found.worst]
    text = (
        f"The fine-tuned trial {found.trial} takes {found.wrong:,} of the {found.photos:,} test photos for another class; the "
        "most frequent pairs first."
    )
    return PageSection("confusions", "Worst confusions", text, tables=[Table(["is", "taken for", "photos"], rows, {2})])
