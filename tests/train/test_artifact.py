"""Promotions on disk: their names, those of earlier versions, and damage."""

from __future__ import annotations

import pytest

from features.errors import HeadhuntError, UsageError
from reports.config import Run
from tests.fabricated import fabricate_promotion
from train.promotion.artifact import damaged_promotions, find_promotion, find_promotions
from train.promotion.predictions import read_predictions
from train.promotion.promote import promote


def test_a_promotion_of_an_earlier_version_is_found_and_not_made_again(searched: Run) -> None:
    (made,) = promote(searched)
    earlier = made.folder.rename(made.folder.with_name(str(made.trial)))
    (found,) = find_promotions(searched)
    assert (found.folder, found.recipe, found.title) == (earlier, "", f"trial {made.trial}")
    written = (earlier / "metrics.json").stat().st_mtime_ns
    (again,) = promote(searched)
    assert (again.folder, (earlier / "metrics.json").stat().st_mtime_ns) == (earlier, written)


def test_recipes_of_a_trial_are_told_apart(searched: Run) -> None:
    number = fabricate_promotion(searched, 0, {"accuracy": 0.5}, "0a1b2c3d")
    fabricate_promotion(searched, 0, {"accuracy": 0.6}, "ffb2c3d4")
    assert [each.recipe for each in find_promotions(searched)] == ["ffb2c3d4", "0a1b2c3d"]
    assert find_promotion(searched, number).recipe == "ffb2c3d4"
    assert find_promotion(searched, number, "0a").recipe == "0a1b2c3d"
    with pytest.raises(
        UsageError, match=rf"trial {number} is not promoted with the recipe '12'; its recipes: ffb2c3d4, 0a1b"
    ):
        find_promotion(searched, number, "12")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"trial": 1}', '{"trial": 1, "tuned": {"val": {"accuracy": "x"}}}']
)
def test_damaged_metrics_are_named_and_do_not_hide_the_others(searched: Run, content: str) -> None:
    whole = fabricate_promotion(searched, 0)
    damaged = fabricate_promotion(searched, 1)
    (searched.workdir / f"promotions/{damaged}-0a1b2c3d/metrics.json").write_text(content)
    assert [each.trial for each in find_promotions(searched)] == [whole]
    (message,) = damaged_promotions(searched)
    assert message.startswith(f"run/promotions/{damaged}-0a1b2c3d/metrics.json is damaged (")
    assert message.endswith("Delete its folder, then run `headhunt train promote` again.")
    with pytest.raises(HeadhuntError, match=r"metrics\.json is damaged"):
        find_promotion(searched, damaged)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is missing"),
        ("", "is damaged"),
        ("path,split\na,test\n", "has no class_name, label, predicted_1, probability_1"),
        (
            "path,split,label,class_name,predicted_1,probability_1\na,test,x,c,0,0.5\n",
            "label is not a number everywhere",
        ),
        ('path,split,label,class_name,predicted_1,probability_1\n"a,test', "is damaged"),
    ],
)
def test_damaged_predictions_are_named(searched: Run, content: str | None, reason: str) -> None:
    fabricate_promotion(searched)
    (promotion,) = find_promotions(searched)
    path = promotion.folder / "predictions.csv"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(HeadhuntError, match=rf"predictions.csv .*{reason}"):
        read_predictions(promotion, "test")
