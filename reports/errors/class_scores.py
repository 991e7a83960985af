"""Which classes the best promoted model knows best, and which least."""

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
"""Classes drawn from either end."""

LABEL = 20
"""Letters of a class name beside its point; the rest is in its hover text."""


class ClassScore(NamedTuple):
    """Of the `photos` test photos of a class `right` are named rightly, an accuracy whose 95 % interval is `interval`.

    `named` test photos were given its name. `taken_for` is what its other photos are taken for most often, of which there are
    `mistaken`; empty where there are none.
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
        """The share of its photos that is named rightly."""
        return self.right / self.photos


def collect(found: Predictions) -> list[ClassScore]:
    """Every class with test photos, the worst first; of equal accuracies the class with more photos."""
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
    """Of all test photos: the share that is named rightly; and two means over classes, in which a rare class counts as much as a
    frequent one: `balanced_accuracy` of their recalls, `macro_f1` of their F1 scores, 0 for a class never named rightly.

    A class without test photos counts only in the F1 scores, and only if a photo was taken for it.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float


def averages(found: Predictions) -> Averages:
    """The accuracy of all test photos beside the means over classes."""
    named, classes = found.predicted[:, 0], len(found.class_names)
    photos, given = np.bincount(found.labels, minlength=classes), np.bincount(named, minlength=classes)
    right = np.bincount(found.labels[found.right], minlength=classes)
    present, either = photos > 0, photos + given > 0
    return Averages(
        float(found.right.mean()),
        float((right[present] / photos[present]).mean()),
        float((2 * right[either] / (photos + given)[either]).mean()),
    )


def ends(scores: list[ClassScore]) -> tuple[list[ClassScore], list[ClassScore]]:
    """The SHOWN worst, the worst first, and of the others the SHOWN best, the best first; more photos count for more."""
    best = sorted(scores[SHOWN:], key=lambda score: (-score.accuracy, -score.photos))
    return scores[:SHOWN], best[:SHOWN]


def draw(worst: list[ClassScore], best: list[ClassScore]) -> go.Figure:
    """A point for each class at its accuracy, with its interval; the best above, the worst below."""
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
    """The figure of the best and worst, and a table of all; LeftOutError where nothing is promoted."""
    found = load_predictions(run)
    scores = collect(found)
    sizes = [score.photos for score in scores]
    each = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
    accuracies = sorted(score.accuracy for score in scores)
    said = (
        f"Half of the classes are named rightly in at least {share(accuracies[len(scores) // 2])} of their test photos, "
        f"of which a class has {each}: the number behind its name. The lines are 95 % intervals (Wilson); where there are few "
        "photos they are wide, and the order says little."
    )
    if perfect := sum(score.right == score.photos for score in scores):
        said += f" {perfect} of the {len(scores)} classes {'has' if perfect == 1 else 'have'} no photo named wrongly."
    if without := len(found.class_names) - len(scores):
        said += f" {without} of the {len(found.class_names)} classes have no test photo, and are left out."
    worst, best = ends(scores)
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
    columns = ["class", "test photos", "accuracy", "95 % interval", "precision", "most often taken for"]
    table = Table(columns, rows, {1, 2, 3, 4}, "All classes in numbers")
    figures = {"classes": draw(worst, best)}
    return PageSection("classes", "Best and worst classes", said, figures, [_averages(averages(found)), table])


def _averages(found: Averages) -> Table:
    rows = [
        ["accuracy", share(found.accuracy), "every test photo counts as much"],
        [
            "balanced accuracy",
            share(found.balanced_accuracy),
            "every class counts as much: the mean of their accuracies",
        ],
        ["macro-F1", share(found.macro_f1), "the mean of the classes' F1 scores, of precision and recall"],
    ]
    return Table(["test", "", "what counts"], rows, {1})
