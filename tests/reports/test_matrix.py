"""The confusion matrix, the curves of two classes and the means over classes, compared with scikit-learn."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser
from sklearn import metrics

from reports.build import _page
from reports.config import Run
from reports.errors import class_scores, matrix, two_classes
from reports.section import PageSection
from tests.reports.test_page import open_page
from train.promotion.predictions import Predictions


def random_predictions(classes: int, photos: int, seed: int, spread: float = 1.0) -> tuple[Predictions, Any]:
    """Predictions that tend towards the truth, with all their probabilities (photos, classes)."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, photos)
    scores = random.normal(0, spread, (photos, classes))
    scores[np.arange(photos), labels] += 0.7
    scores = scores.round(1)  # so that some are equal
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    names = tuple(f"class {label}" for label in range(classes))
    paths = [f"{number}.jpg" for number in range(photos)]
    kept = np.take_along_axis(probabilities, order, 1)
    return Predictions(7, "frozen", names, paths, labels, order, kept), probabilities


@pytest.mark.parametrize("classes", [2, 3, 24, 200])
def test_the_counts_are_scikit_learns_in_another_order(classes: int) -> None:
    found, _ = random_predictions(classes, 600, classes)
    made = matrix.collect(found)
    order = [found.class_names.index(name) for name in made.names]
    assert sorted(order) == list(range(classes))
    assert (made.counts == metrics.confusion_matrix(found.labels, found.predicted[:, 0], labels=order)).all()
    drawn = matrix.draw(made)
    assert len(drawn.to_json()) < 1.5e6
    hovered = {
        (row, column, drawn.data[trace].customdata[row][column])
        for trace in range(len(drawn.data))
        for row in range(classes)
        for column in range(classes)
        if drawn.data[trace].z[row][column] is not None
    }
    assert hovered >= {
        (int(row), int(column), f"{made.counts[row, column]} photo{'s' if made.counts[row, column] > 1 else ''}")
        for row, column in np.argwhere(made.counts)
    }
    written = [np.array(trace.text) for trace in drawn.data if trace.text is not None]
    if classes <= 12:  # each count once, on its own colour; the diagonal even where it is 0
        filled = (made.counts > 0) | np.eye(classes, dtype=bool)
        assert (sum((texts != "").astype(int) for texts in written) == filled).all()
        assert sum(int(text) for texts in written for text in texts[texts != ""]) == 600
    else:
        assert not written
    for axis in (drawn.layout.yaxis, drawn.layout.xaxis):
        assert list(axis.ticktext) == made.names  # these fit without shortening
        assert axis.tickfont.size == 10
    assert (drawn.layout.width is None) == (classes <= 12)
    assert drawn.layout.height >= 14 * classes


@pytest.mark.parametrize("width", [1280, 390])
def test_the_names_of_196_classes_can_be_read_in_a_box_that_scrolls(
    browser: Browser, tmp_path: Path, width: int
) -> None:
    found, _ = random_predictions(196, 600, 196)
    names = tuple(f"Chevrolet Silverado {number} Regular Cab" for number in range(196))
    drawn = matrix.draw(matrix.collect(found._replace(class_names=names)))
    run = Run.model_validate({"workdir": str(tmp_path), "dataset": {"kind": "toy_cars"}})
    file = tmp_path / "page.html"
    file.write_text(_page(run, [PageSection("confusions", "Confusions", "", {"confusion-matrix": drawn})], [], []))
    page, noise = open_page(browser, file, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    inside, whole = page.evaluate("(box => [box.clientWidth, box.scrollWidth])(document.querySelector('.box'))")
    assert inside < width < 14 * 196 < whole
    for ticks, start, end in ((".ytick", "top", "bottom"), (".xtick", "left", "right")):
        labels = page.locator(f"#confusions {ticks} text")
        assert len(set(labels.all_text_contents())) == 196
        boxes = page.evaluate(
            "([ticks, start, end]) => [...document.querySelectorAll(`${ticks} text`)].map(label => {"
            "const box = label.getBoundingClientRect(); return [box[start], box[end]]; }).sort((a, b) => a[0] - b[0])",
            [ticks, start, end],
        )
        assert all(after[0] - before[0] >= 12 for before, after in pairwise(boxes))  # lines of 10 pixels' letters
    assert noise == []
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6, 8, 12])
def test_long_names_of_a_few_classes_are_wrapped_and_do_not_overlap(
    browser: Browser, tmp_path: Path, classes: int, width: int
) -> None:
    found, _ = random_predictions(classes, 60, classes)
    names = tuple(f"coupe {number} with a very long name <of> many words" for number in range(classes))
    drawn = matrix.draw(matrix.collect(found._replace(class_names=names)))
    run = Run.model_validate({"workdir": str(tmp_path), "dataset": {"kind": "toy_cars"}})
    file = tmp_path / "page.html"
    file.write_text(_page(run, [PageSection("confusions", "Confusions", "", {"confusion-matrix": drawn})], [], []))
    page, noise = open_page(browser, file, width)
    for ticks, start, end in ((".ytick", "top", "bottom"), (".xtick", "left", "right")):
        labels = page.evaluate(
            "([ticks, start, end]) => [...document.querySelectorAll(`${ticks} text`)].map(label => {"
            "const box = label.getBoundingClientRect(); return [box[start], box[end]]; }).sort((a, b) => a[0] - b[0])",
            [ticks, start, end],
        )
        assert len(labels) == classes
        assert all(before[1] <= after[0] + 1 for before, after in pairwise(labels))
    shown = page.locator(".ytick text").all_text_contents()
    assert any("…" in label for label in shown) == (classes > 4)  # of up to four classes, the whole name is shown
    page.locator(".nsewdrag").first.hover(position={"x": 8, "y": 8})
    told = page.locator(".hoverlayer text").first.text_content() or ""
    assert "a very long name <of> many words" in told
    assert noise == []
    page.close()


def test_classes_that_are_taken_for_each_other_are_neighbours() -> None:
    """Six classes in three pairs that are far apart in label order: (0, 3), (1, 4), (2, 5)."""
    counts = np.diag([10] * 6)
    for one, other in ((0, 3), (1, 4), (2, 5)):
        counts[one, other], counts[other, one] = 4, 3
    order = matrix.near_the_diagonal(counts).tolist()
    assert sorted(tuple(sorted(order[place : place + 2])) for place in (0, 2, 4)) == [(0, 3), (1, 4), (2, 5)]
    nothing = matrix.near_the_diagonal(np.diag([10] * 6))
    assert nothing.tolist() == list(range(6))


def test_a_chain_of_confusions_is_laid_out_as_the_chain() -> None:
    """Each class is confused only with its neighbours in a hidden order; the best order puts all confusions near the diagonal."""
    hidden = np.random.default_rng(3).permutation(40)
    counts = np.diag([20] * 40)
    for one, other in pairwise(hidden):
        counts[one, other] = counts[other, one] = 5
    order = matrix.near_the_diagonal(counts)
    rows, columns = np.nonzero(counts[np.ix_(order, order)] * ~np.eye(40, dtype=bool))
    assert np.abs(rows - columns).mean() < 2
    shuffled_rows, shuffled_columns = np.nonzero(counts * ~np.eye(40, dtype=bool))
    assert np.abs(shuffled_rows - shuffled_columns).mean() > 8


def test_of_more_classes_than_can_be_read_the_most_confused_are_drawn() -> None:
    labels = np.arange(300).repeat(2)
    named = labels.copy()
    named[100:500:2] = labels[100:500:2] + 1  # one photo of each of the classes 50 to 249
    five = np.stack([named, *[np.zeros_like(named)] * 4], 1)
    names = tuple(f"c{label}" for label in range(300))
    found = Predictions(7, "frozen", names, [""] * 600, labels, five, np.full(five.shape, 0.2))
    made = matrix.collect(found)
    assert (len(made.names), made.classes) == (200, 300)
    assert set(made.names) <= {f"c{label}" for label in range(50, 251)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("positive", [0, 1])
def test_curves_and_areas_are_scikit_learns(seed: int, positive: int) -> None:
    found, probabilities = random_predictions(2, 150, seed)
    curves = two_classes.collect(found, positive)
    assert curves is not None
    truth, scores = found.labels == positive, probabilities[:, positive]
    assert curves.area == pytest.approx(metrics.roc_auc_score(truth, scores))
    assert curves.precision_average == pytest.approx(metrics.average_precision_score(truth, scores))
    fallout, recall, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(curves.false_positive_rate, fallout)
    np.testing.assert_allclose(curves.recall, recall)
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    np.testing.assert_allclose(curves.precision[::-1], precision)
    np.testing.assert_allclose(curves.recall[::-1], recall)


def test_only_two_classes_with_photos_of_both_have_curves() -> None:
    three, _ = random_predictions(3, 50, 0)
    assert two_classes.blocks(three) == []
    two, _ = random_predictions(2, 50, 0)
    assert two_classes.blocks(two._replace(labels=np.zeros(50, np.int64))) == []
    (block,) = two_classes.blocks(two)
    assert list(block.figures) == ["roc", "precision-recall"]
    area = metrics.roc_auc_score(two.labels, two_classes_probability(two))
    assert f"The area under the ROC curve is {area:.3f};" in block.text


def two_classes_probability(found: Predictions) -> Any:
    """The probability of class 1."""
    return [
        dict(zip(labels, values, strict=True))[1]
        for labels, values in zip(found.predicted.tolist(), found.probabilities.tolist(), strict=True)
    ]


@pytest.mark.parametrize(("classes", "photos"), [(2, 9), (3, 40), (24, 60), (60, 50)])
def test_the_means_over_classes_are_scikit_learns(classes: int, photos: int) -> None:
    """With more classes than photos, some classes have no photos, and some of these are predicted anyway."""
    found, _ = random_predictions(classes, photos, photos)
    named = found.predicted[:, 0]
    made = class_scores.averages(found)
    assert made.accuracy == pytest.approx(metrics.accuracy_score(found.labels, named))
    assert made.macro_f1 == pytest.approx(metrics.f1_score(found.labels, named, average="macro", zero_division=0))
    recalls = metrics.recall_score(found.labels, named, average=None, labels=np.unique(found.labels), zero_division=0)
    assert made.balanced_accuracy == pytest.approx(np.mean(recalls))
    if set(named) <= set(found.labels):  # otherwise scikit-learn warns
        assert made.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(found.labels, named))
