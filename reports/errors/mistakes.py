"""The photos that the best promoted model misclassifies, most confident mistakes first."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from features.dataset.index import DatasetIndex, load_index
from features.runtime.errors import CacheError
from reports.config import Run
from reports.dataset.pictures import thumbnail
from reports.errors import nearest, truth_ranks
from reports.errors.nearest import Nearest
from reports.errors.predictions import load_predictions
from reports.section import Block, PageSection, Picture, Table
from reports.style import share
from train.promotion.predictions import Predictions

LISTED = 200
"""Maximum number of mistakes in the table, which has no pictures."""


class Mistake(NamedTuple):
    """A test photo, its true class, the predicted class, and the probabilities of both.

    `truth_probability` is None if the true class is not among the five stored ones; `place` is the photo's position in the
    predictions.
    """

    path: str
    truth: str
    truth_probability: float | None
    predicted: str
    probability: float
    place: int


def collect(found: Predictions) -> list[Mistake]:
    """Every mistake, most confident first."""
    wrong = np.flatnonzero(~found.right)
    order = wrong[np.argsort(-found.probabilities[wrong, 0], kind="stable")]
    mistakes = []
    for row in order.tolist():
        truth, predicted = int(found.labels[row]), int(found.predicted[row, 0])
        at = np.flatnonzero(found.predicted[row] == truth)
        mistakes.append(
            Mistake(
                found.paths[row],
                found.class_names[truth],
                float(found.probabilities[row, at[0]]) if len(at) else None,
                found.class_names[predicted],
                float(found.probabilities[row, 0]),
                row,
            )
        )
    return mistakes


def photos(mistakes: list[Mistake], index: DatasetIndex, crop_to_bbox: bool) -> list[Picture]:
    """The misclassified photos."""
    rows = {path: row for row, path in enumerate(index.table["path"].astype(str))}
    pictures = []
    for mistake in mistakes:
        truth, probability = _probability(mistake.truth_probability), share(mistake.probability)
        caption = f"true class {mistake.truth}: {_whole(truth)}; predicted {mistake.predicted}: {_whole(probability)}"
        there = thumbnail(index, rows[mistake.path], crop_to_bbox) if mistake.path in rows else None
        pictures.append(Picture(caption, there))
    return pictures


def neighbours(near: list[Nearest], index: DatasetIndex, crop_to_bbox: bool) -> list[Picture]:
    """The training photos nearest to the mistakes."""
    pictures = []
    for row, cosine in near:
        of_class = index.class_names[int(index.table["label"].iloc[row])]
        caption = f"nearest training photo: {of_class}, {_whole(f'cosine {_cosine(cosine)}')}"
        pictures.append(Picture(caption, thumbnail(index, row, crop_to_bbox)))
    return pictures


def section(run: Run) -> PageSection:
    """The number of mistakes, the ranks of their true classes, and pictures; LeftOutError if nothing is promoted."""
    found = load_predictions(run)
    mistakes, ranks = collect(found), truth_ranks.collect(found)
    wrong, photos = len(mistakes), len(found.labels)
    text = f"The {found.stage} trial {found.trial} misclassifies {wrong:,} of the {photos:,} test photos"
    several = len(ranks.counts) > 2  # of two classes, the wrong one is always the second choice
    if wrong and several:
        second = ranks.counts[1]
        text += f"; for {second:,} of them ({share(second / wrong)}) the true class was its second choice"
    blocks = [_shown(run, found, mistakes)] if wrong else []
    figures = {"truth-ranks": truth_ranks.draw(ranks)} if several else {}
    return PageSection("mistakes", "Mistakes", f"{text}.", figures, blocks=blocks)


def _shown(run: Run, found: Predictions, mistakes: list[Mistake]) -> Block:
    shown, listed, index = mistakes[: run.reports.mistakes], mistakes[:LISTED], load_index(run)
    crop = bool(getattr(run.dataset, "crop_to_bbox", False))
    own = photos(shown, index, crop)
    text = "Wrong with high confidence. The percentages are the model's probabilities of the two classes. "
    try:
        near = nearest.collect(run, found, [mistake.place for mistake in shown])
        pairs = list(zip(own, neighbours(near, index, crop), strict=True))
        text += "Beside each test photo is the nearest training photo by the cosine of their clean features."
    except CacheError as error:
        pairs = []
        text += f"The nearest training photos are left out: {error}"
    if gone := sum(picture.uri is None for picture in own):
        text += f" {gone} of these {len(shown)} test photos {'is' if gone == 1 else 'are'} no longer on disk."
    rows = [
        [
            mistake.path,
            mistake.truth,
            _probability(mistake.truth_probability),
            mistake.predicted,
            share(mistake.probability),
        ]
        for mistake in listed
    ]
    summary = f"All {len(mistakes)} in a table" if len(listed) == len(mistakes) else f"The first {LISTED} in a table"
    table = Table(["photo", "true class", "probability", "predicted", "probability"], rows, {2, 4}, summary)
    return Block("The most confident mistakes", text, tables=[table], pictures=[] if pairs else own, pairs=pairs)


def _probability(value: float | None) -> str:
    return "not in the top five" if value is None else share(value)


def _cosine(value: float) -> str:
    """A cosine, with two digits of its distance from 1: 0.52, 0.9987. Nothing below 1 is rounded to 1."""
    return f"{value:z.{max(2, 1 - math.floor(math.log10(1 - value))) if value < 1 else 2}f}"


def _whole(words: str) -> str:
    """Words joined by non-breaking spaces."""
    return words.replace(" ", "\u00a0")
