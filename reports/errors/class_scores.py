"""The classes that the best promoted model recognises best and worst."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from reports.config import Run
from reports.errors.predictions import load_predictions
from reports.section import PageSection, Table
from reports.style import COLOURS, PERCENT, figure, share, shortened, text
from train.evaluate import wilson_interval
from train.promotion.predictions import Predictions

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHOWN = 10
"""Maximum number of classes drawn at each end."""

LABEL = 20
"""Maximum letters of a class name beside its point; the hover text has the full name."""


class ClassScore(NamedTuple):
    """The score of a class: `right` of its `photos` test photos are classified correctly; `interval` is the accuracy's 95 %
    interval.

    `named` test photos were predicted as this class. `taken_for` is the class that its photos are most often mistaken for (empty
    if none), and `mistaken` how many are.
    """

    name: str
    photos: int
    right: int
    interval: tuple[float, float]
    named: int
    taken_for: str
    mistaken: int

    @property
    def accuracy(self) -> float:
        """The share of its photos that are classified correctly."""
        return self.right / self.photos


def collect(found: Predictions) -> list[ClassScore]:
    """Every class with test photos, worst first; among equal accuracies, the class with more photos first."""
    scores = []
    for label, name in enumerate(found.class_names):
        of_class = found.predicted[found.labels == label, 0]
        if not len(of_class):
            continue
        right = int((of_class == label).sum())
        others, counts = np.unique(of_class[of_class != label], return_counts=True)
        most = int(counts.argmax()) if len(counts) else None
        scores.append(
            ClassScore(
                name,
                len(of_class),
                right,
                wilson_interval(right / len(of_class), len(of_class)),
                int((found.predicted[:, 0] == label).sum()),
                "" if most is None else found.class_names[others[most]],
                0 if most is None else int(counts[most]),
            )
        )
    return sorted(scores, key=lambda score: (score.accuracy, -score.photos))


class Averages(NamedTuple):
    """The accuracy on all test photos, and two means over classes, in which rare and frequent classes count the same:
    `balanced_accuracy`, the mean recall, and `macro_f1`, the mean F1 score (0 for a class that is never predicted correctly).

    A class without test photos counts only in the F1 scores, and only if a photo was mistaken for it.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float


def averages(found: Predictions) -> Averages:
    """The accuracy on all test photos, and the means over classes."""
    named, classes = found.predicted[:, 0], len(found.class_names)
    photos, given = np.bincount(found.labels, minlength=classes), np.bincount(named, minlength=classes)
    right = np.bincount(found.labels[found.right], minlength=classes)
    present, either = photos > 0, photos + given > 0
    return Averages(
        float(found.right.mean()),
        float((right[present] / photos[present]).mean()),
        float((2 * right[either] / (photos + given)[either]).mean()),
    )


def worst_and_best(scores: list[ClassScore]) -> tuple[list[ClassScore], list[ClassScore]]:
    """The SHOWN worst classes, worst first, and the SHOWN best of the others, best first; ties: more photos first."""
    best = sorted(scores[SHOWN:], key=lambda score: (-score.accuracy, -score.photos))
    return scores[:SHOWN], best[:SHOWN]


def draw(worst: list[ClassScore], best: list[ClassScore]) -> go.Figure:
    """A point with interval for each class's accuracy; the best at the top, the worst at the bottom."""
    drawn = figure("accuracy", "", automargin=True)
    rows = [*worst, *reversed(best)]
    for name, first, scores, colour in (
        ("best", len(worst), rows[len(worst) :], COLOURS[2]),
        ("worst", 0, rows[: len(worst)], COLOURS[3]),
    ):
        drawn.add_scatter(
            x=[score.accuracy for score in scores],
            y=list(range(first, first + len(scores))),
            mode="markers",
            name=name,
            marker={"color": colour, "size": 9},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [score.interval[1] - score.accuracy for score in scores],
                "arrayminus": [score.accuracy - score.interval[0] for score in scores],
                "thickness": 1.2,
                "width": 3,
            },
            customdata=[f"{text(score.name)}: {score.right} of {score.photos}" for score in scores],
            hovertemplate="%{customdata}<extra></extra>",
            showlegend=bool(best),
        )
    names = shortened([score.name for score in rows], LABEL)
    labels = [f"{text(name)} ({score.photos})" for name, score in zip(names, rows, strict=True)]
    drawn.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=labels, tickfont={"size": 11}, range=[-0.7, len(rows) - 0.3]
    )
    drawn.update_xaxes(tickformat=PERCENT, range=[-0.04, 1.05])
    drawn.update_layout(height=120 + 20 * len(rows))
    return drawn


def section(run: Run) -> PageSection:
    """The figure of the best and worst classes, and a table of all; LeftOutError if nothing is promoted."""
    found = load_predictions(run)
    scores = collect(found)
    sizes = [score.photos for score in scores]
    each = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
    accuracies = sorted(score.accuracy for score in scores)
    said = (
        f"Half of the classes have an accuracy of at least {share(accuracies[len(scores) // 2])} on their test photos, "
        f"{each} per class (the number after its name). The lines are 95 % intervals (Wilson); with few photos they are wide, "
        "and the order means little."
    )
    if perfect := sum(score.right == score.photos for score in scores):
        said += f" {perfect} of the {len(scores)} classes {'has' if perfect == 1 else 'have'} no misclassified photos."
    if without := len(found.class_names) - len(scores):
        have, are = ("has", "is") if without == 1 else ("have", "are")
        said += f" {without} of the {len(found.class_names)} classes {have} no test photos and {are} left out."
    worst, best = worst_and_best(scores)
    rows = [
        [
            score.name,
            f"{score.photos:,}",
            share(score.accuracy),
            " to ".join(share(end) for end in score.interval),
            share(score.right / score.named) if score.named else "–",
            f"{score.taken_for} ({score.mistaken})" if score.taken_for else "",
        ]
        for score in scores
    ]
    columns = ["class", "test photos", "accuracy", "95 % interval", "precision", "most often mistaken for"]
    table = Table(columns, rows, {1, 2, 3, 4}, "All classes in numbers")
    figures = {"classes": draw(worst, best)}
    return PageSection("classes", "Best and worst classes", said, figures, [_averages(averages(found)), table])


def _averages(found: Averages) -> Table:
    rows = [
        ["accuracy", share(found.accuracy), "every test photo counts equally"],
        [
            "balanced accuracy",
            share(found.balanced_accuracy),
            "every class counts equally: the mean of their accuracies",
        ],
        ["macro-F1", share(found.macro_f1), "the mean of the classes' F1 scores, of precision and recall"],
    ]
    return Table(["test", "", "what counts"], rows, {1})
