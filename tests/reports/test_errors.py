"""The errors of the best promoted model: their numbers, and their look in headless Chromium."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from features.cache.feature_cache import cache_for
from features.dataset.index import load_index
from features.runtime.errors import CacheError
from reports.build import build
from reports.config import HistoryConfig, Run
from reports.errors import calibration, class_scores, confusions, mistakes, nearest, truth_ranks
from reports.errors.predictions import load_predictions
from reports.section import LeftOutError
from tests.fabricated import fabricate_promotion
from tests.reports.test_page import open_page, rename_class
from train.evaluate import wilson_interval
from train.promotion.artifact import find_promotion
from train.promotion.predictions import Predictions

NAMES = ("a", "b", "c", "d", "e", "f", "g")


def predictions(*rows: tuple[int, list[int], list[float]], names: tuple[str, ...] = NAMES) -> Predictions:
    """Test photos 0.jpg, 1.jpg, … of (label, the five predicted classes, their probabilities)."""
    labels, predicted, probabilities = zip(*rows, strict=True)
    paths = [f"{number}.jpg" for number in range(len(rows))]
    return Predictions(7, "fine-tuned", names, paths, np.array(labels), np.array(predicted), np.array(probabilities))


FIVE = predictions(
    (0, [0, 1, 2, 3, 4], [0.9, 0.04, 0.03, 0.02, 0.01]),
    (0, [1, 0, 2, 3, 4], [0.5, 0.3, 0.1, 0.06, 0.04]),
    (0, [1, 2, 0, 3, 4], [0.7, 0.1, 0.08, 0.06, 0.04]),
    (1, [1, 0, 2, 3, 4], [0.6, 0.2, 0.1, 0.06, 0.04]),
    (6, [2, 0, 1, 3, 4], [0.8, 0.1, 0.05, 0.03, 0.01]),
)


def test_confusions_are_counted_by_pair() -> None:
    found = confusions.collect(FIVE, 5)
    assert (found.trial, found.wrong, found.photos) == (7, 3, 5)
    assert found.worst == [("a", "b", 2, 3), ("g", "c", 1, 1)]


def test_mistakes_come_the_most_confident_first_with_both_probabilities() -> None:
    assert mistakes.collect(FIVE) == [
        ("4.jpg", "g", None, "c", 0.8, 4),
        ("2.jpg", "a", 0.08, "b", 0.7, 2),
        ("1.jpg", "a", 0.3, "b", 0.5, 1),
    ]


def test_the_place_of_the_truth_and_what_lies_beyond() -> None:
    ranks = truth_ranks.collect(FIVE)
    assert ranks == (5, ["first", "second", "third", "fourth", "fifth", "beyond"], [2, 1, 1, 0, 0, 1])
    assert list(truth_ranks.draw(ranks).data[0].text)[:2] == ["2<br>40.0 %", "1<br>20.0 %"]
    three = predictions((0, [0, 1, 2], [0.6, 0.3, 0.1]), (2, [1, 2, 0], [0.6, 0.3, 0.1]), names=("a", "b", "c"))
    assert truth_ranks.collect(three) == (2, ["first", "second", "third"], [1, 1, 0])


def test_classes_from_the_worst_on_with_intervals_and_what_they_are_taken_for() -> None:
    scores = class_scores.collect(FIVE)
    assert [(score.name, score.photos, score.right) for score in scores] == [("g", 1, 0), ("a", 3, 1), ("b", 1, 1)]
    worst, second, best = scores
    assert (second.taken_for, second.mistaken, second.named) == ("b", 2, 1)
    assert second.interval == wilson_interval(1 / 3, 3)
    assert (worst.named, best.named, best.taken_for, best.mistaken) == (0, 3, "", 0)


def test_both_ends_are_drawn_and_no_class_twice() -> None:
    rows = [(label, [0 if of <= label else label], [0.5]) for label in range(1, 30) for of in range(30)]
    names = tuple(f"class {label} of a long name, longer than fits" for label in range(30))
    scores = class_scores.collect(predictions(*rows, names=names))
    worst, best = class_scores.worst_and_best(scores)
    assert [score.name for score in worst] == [names[label] for label in range(29, 19, -1)]
    assert [score.name for score in best] == list(names[1:11])
    drawn = class_scores.draw(worst, best)
    assert [len(points.x) for points in drawn.data] == [10, 10]
    assert drawn.layout.yaxis.ticktext[0] == "class 29 of a long … (30)"
    assert drawn.data[0].customdata[-1] == f"{names[1]}: 28 of 30"
    assert drawn.data[0].x[-1] == best[0].accuracy == 28 / 30
    few = class_scores.worst_and_best(scores[:4])
    assert few == (scores[:4], [])


def test_calibration_by_hand() -> None:
    """FIVE: 0.9 and 0.6 are right, 0.5, 0.7 and 0.8 wrong, each alone in its bin: (0.1 + 0.4 + 0.5 + 0.7 + 0.8) / 5. Of 0.88
    and 0.92, in the bin from 13/15 to 14/15, one is right; 0.5 is wrong: (2 · |0.5 - 0.9| + 0.5) / 3."""
    found = calibration.collect(FIVE)
    assert found.ece == pytest.approx(2.5 / 5)
    assert (found.accuracy, found.confidence) == (0.4, pytest.approx(0.7))
    assert [(one.photos, one.right) for one in found.bins] == [(1, 0), (1, 1), (1, 0), (1, 0), (1, 1)]
    assert [one.confidence for one in found.bins] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    shared = calibration.collect(
        predictions((0, [0, 1], [0.88, 0.12]), (0, [1, 0], [0.92, 0.08]), (0, [1, 0], [0.5, 0.5]))
    )
    assert shared.ece == pytest.approx(1.3 / 3)
    worst_and_best = [(one.low, one.high, one.photos, one.right) for one in shared.bins]
    assert worst_and_best == [
        (pytest.approx(7 / 15), pytest.approx(8 / 15), 1, 0),
        (pytest.approx(13 / 15), pytest.approx(14 / 15), 2, 1),
    ]
    bars = calibration.draw(found).data
    assert sum(bars[-1].y) == 5
    unknown = FIVE._replace(probabilities=np.full((5, 5), np.nan))
    with pytest.raises(LeftOutError, match="trial 7 are not finite"):
        calibration.collect(unknown)


def test_numbers_of_the_files_and_of_the_metrics_agree(searched: Run) -> None:
    with pytest.raises(LeftOutError, match="`headhunt train promote`"):
        load_predictions(searched)
    number = fabricate_promotion(searched)
    found = load_predictions(searched)
    assert found.trial == number
    assert len(found.paths) == len(load_index(searched).of_split("test"))
    metrics = find_promotion(searched, number).tuned.test
    assert metrics is not None
    assert calibration.collect(found).ece == pytest.approx(metrics.ece, abs=1e-6)
    assert found.right.mean() == pytest.approx(metrics.accuracy)


def test_the_new_sections_in_a_browser_with_a_hostile_class_and_a_photo_gone(
    searched: Run, browser: Browser, tmp_path: Path
) -> None:
    name = "<script>document.title=1</script>"
    fabricate_promotion(searched)
    rename_class(searched, name)
    table = tmp_path / "a-history-with-a-very-long-name-that-would-not-fit-on-the-screen-of-a-phone.csv"
    table.write_text("loss,accuracy,val_loss,val_accuracy\n2,0.1,3,0.1\n1,0.2,2,0.2\n")
    history = HistoryConfig(name=name, files=(str(table), str(table)))
    shown = searched.reports.model_copy(update={"histories": (history,)})
    mistaken = mistakes.collect(load_predictions(searched))
    for file in (searched.workdir / "dataset" / "index.csv", *searched.workdir.glob("promotions/*/predictions.csv")):
        file.write_text(file.read_text().replace(f"{mistaken[0].path},", f"gone-{mistaken[0].path},"))
    run = searched.model_copy(update={"reports": shown})
    page, noise = open_page(browser, Path(build(run)["report"]), 390)
    assert noise == []
    for section, figures in {
        "promotions": 1,
        "histories": 1,
        "confusions": 1,
        "mistakes": 1,
        "classes": 1,
        "calibration": 1,
    }.items():
        assert page.locator(f"#{section} .js-plotly-plot").count() == figures
    assert page.locator("#cache tbody tr").count() == 1
    assert page.locator("#mistakes .pictures figure").count() == len(mistaken)
    assert (
        "nearest training photos are left out: " in page.locator("#mistakes").inner_text()
    )  # another class name, so another cache
    assert page.locator("#mistakes .gone").all_inner_texts() == ["not on disk"]
    assert f"1 of these {len(mistaken)} test photos is no longer on disk." in page.locator("#mistakes").inner_text()
    assert name in " ".join(page.locator("#mistakes figcaption").all_inner_texts())
    assert page.locator("#histories h3").inner_text() == name
    assert any(label.startswith(name[:19]) for label in page.locator("#classes .ytick text").all_text_contents())
    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "tiny · Headhunt"
    page.close()


@pytest.mark.parametrize(
    ("cosine", "shown"),
    [
        (-0.001, "0.00"),
        (0.523, "0.52"),
        (0.987, "0.987"),
        (0.99724, "0.9972"),
        (0.999936, "0.999936"),
        (0.9999996, "0.99999960"),
        (1.0, "1.00"),
        (1.0000001, "1.00"),
    ],
)
def test_cosines_near_1_keep_the_digits_that_tell_them_apart(searched: Run, cosine: float, shown: str) -> None:
    (picture,) = mistakes.neighbours([nearest.Nearest(0, cosine)], load_index(searched), False)
    assert picture.caption.endswith(f", cosine\u00a0{shown}")


def test_a_mistake_stands_beside_the_training_photo_with_the_most_similar_features(searched: Run) -> None:
    """The nearest training photos by scikit-learn's cosine of their features."""
    from sklearn.metrics.pairwise import cosine_similarity

    fabricate_promotion(searched)
    found, index = load_predictions(searched), load_index(searched)
    mistaken = mistakes.collect(found)
    near = nearest.collect(searched, found, [mistake.place for mistake in mistaken])
    cache = cache_for(searched)
    features = {split: np.asarray(cache.arrays(split)[0], np.float64) for split in ("train", "test")}
    test, train = (
        features[split].reshape(len(features[split]), -1, cache.feature_shape[-1]).mean(1)
        for split in ("test", "train")
    )
    cosines = cosine_similarity(test, train)
    paths = index.of_split("test")["path"].tolist()
    for mistake, (row, cosine) in zip(mistaken, near, strict=True):
        own = cosines[paths.index(mistake.path)]
        assert cosine == pytest.approx(own.max(), abs=1e-3)
        assert row == index.of_split("train").index[int(own.argmax())]
        (caption,) = [picture.caption for picture in mistakes.neighbours([near[mistaken.index(mistake)]], index, False)]
        name = index.table["class_name"][row]
        said, _, shown = caption.replace("\u00a0", " ").rpartition(" ")
        assert said == f"nearest training photo: {name}, cosine"
        assert 1 - float(shown) == pytest.approx(1 - own.max(), rel=0.06, abs=0.005 if own.max() < 0.9 else 0)
    (block,) = mistakes.section(searched).blocks
    assert len(block.pairs) == len(mistaken) > 0
    other = found._replace(labels=found.labels[::-1].copy())
    with pytest.raises(CacheError, match="the predictions are for other test photos than the cache"):
        nearest.collect(searched, other, [0])
