"""Promotions on disk: their names, those of earlier versions, and damage."""

from __future__ import annotations

import json

import pytest

from features.runtime.errors import HeadhuntError, UsageError
from reports.config import Run
from tests.fabricated import fabricate_promotion
from train.promotion.artifact import damaged_promotions, find_promotion, find_promotions, write_promotion
from train.promotion.predictions import read_predictions
from train.promotion.promote import promote

WITHOUT_VAL = "without the validation photos"


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
    "content", ["", "{", "[]", '{"trial": 1}', '{"trial": 1, "tuned": {"val": {"accuracy": "x"}}}', WITHOUT_VAL]
)
def test_damaged_metrics_are_named_and_do_not_hide_the_others(searched: Run, content: str) -> None:
    whole = fabricate_promotion(searched, 0)
    damaged = fabricate_promotion(searched, 1)
    path = searched.workdir / f"promotions/{damaged}-0a1b2c3d/metrics.json"
    if content == WITHOUT_VAL:
        metrics = json.loads(path.read_text())
        del metrics["tuned"]["val"]
        content = json.dumps(metrics)
    path.write_text(content)
    assert [each.trial for each in find_promotions(searched)] == [whole]
    (message,) = damaged_promotions(searched)
    assert message.startswith(f"run/promotions/{damaged}-0a1b2c3d/metrics.json is damaged (")
    assert message.endswith("Delete its folder, then rerun `headhunt train promote`.")
    with pytest.raises(HeadhuntError, match=r"metrics\.json is damaged"):
        find_promotion(searched, damaged)


def test_metrics_are_written_as_earlier_versions_wrote_them_and_theirs_are_read(searched: Run) -> None:
    fabricate_promotion(searched)
    (promotion,) = find_promotions(searched)
    path = promotion.folder / "metrics.json"
    content = json.loads(path.read_text())
    assert list(content) == [
        "trial", "frozen", "tuned", "parity", "unfrozen", "finetune", "backend", "devices", "epochs", "best_epoch", "seconds",
        "versions", "made_from",
    ]  # fmt: skip
    assert list(content["tuned"]) == ["train", "val", "test"]
    assert list(content["tuned"]["val"]) == ["loss", "accuracy", "top5_accuracy", "ece"]
    del content["backend"], content["devices"], content["tuned"]["test"], content["tuned"]["val"]["ece"]
    path.write_text(json.dumps(content, indent=1) + "\n")
    (older,) = find_promotions(searched)
    assert (older.backend, older.devices, older.tuned.test, older.tuned.val.ece) == ("tensorflow", 1, None, None)
    write_promotion(older)
    written = json.loads(path.read_text())
    assert written == {**content, "backend": "tensorflow", "devices": 1}


def test_metrics_of_a_later_version_or_another_trial_are_not_misread(searched: Run) -> None:
    number = fabricate_promotion(searched)
    (promotion,) = find_promotions(searched)
    path = promotion.folder / "metrics.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"version": 2, "other": "keys"}))
    assert damaged_promotions(searched) == [
        f"{path} has format version 2, but this version of Headhunt reads version 1. Update Headhunt to read it."
    ]
    path.write_text(json.dumps({**content, "trial": number + 1}))
    (message,) = damaged_promotions(searched)
    assert message.startswith(f"{path} is damaged (it belongs to trial {number + 1}).")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is missing"),
        ("", "is damaged"),
        ("path,split\na,test\n", "has no class_name, label, predicted_1, probability_1"),
        (
            "path,split,label,class_name,predicted_1,probability_1\na,test,x,c,0,0.5\n",
            "label has values that are not numbers",
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
        read_predictions(searched, promotion, "test")


def test_predictions_of_other_photos_or_classes_are_refused(searched: Run) -> None:
    fabricate_promotion(searched)
    (promotion,) = find_promotions(searched)
    path = promotion.folder / "predictions.csv"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    splits = [line.split(",")[1] for line in lines]
    first, last = splits.index("test"), len(lines) - 1
    assert splits[last] == "test"
    found = read_predictions(searched, promotion, "test")
    photos, label = len(found.labels), found.labels[0]
    named = f"{label},{found.class_names[label]},{found.predicted[0, 0]},"
    assert photos == last - first + 1
    again = "Delete its folder, then rerun `headhunt train promote`."
    for content, reason in {
        "".join(lines[:first]): f"it has 0 test photos, the index {photos}",
        "".join(lines[:last]): f"it has {photos - 1} test photos, the index {photos}",
        "".join(
            [*lines[:first], lines[last], *lines[first + 1 : last], lines[first]]
        ): "its test photos are different or in ",
        whole.replace(named, named.replace(named[0], "3", 1)): "its test photos have different labels",
        whole.replace(
            named, f"{named[:-2]}3,"
        ): "it contains a label that is not one of the 3 classes (numbered from 0)",
    }.items():
        path.write_text(content)
        with pytest.raises(HeadhuntError) as raised:
            read_predictions(searched, promotion, "test")
        start = f"{path} is damaged or does not match the index: {reason}"
        assert str(raised.value).startswith(start) and str(raised.value).endswith(again)
    for length in (len(whole) // 2, len(whole) - 1, len(whole) - 3):
        path.write_text(whole[:length])
        with pytest.raises(HeadhuntError, match=r"predictions.csv is damaged \(its last line is cut off\)"):
            read_predictions(searched, promotion, "test")


def test_a_network_that_lost_by_its_export_what_fine_tuning_gained_says_so(searched: Run) -> None:
    """The fabricated history's best epoch, 5, has 90 %, the frozen network 40 %."""
    for accuracy, said in ((0.9, ""), (0.6, "."), (0.4, ", and 40.0 % of the frozen network.")):
        recipe = f"{round(10 * accuracy)}a1b2c3d"
        fabricate_promotion(searched, 0, {"accuracy": accuracy}, recipe)
        found = next(each for each in find_promotions(searched) if each.recipe == recipe)
        sentence = f"Exported in float32, it classifies {100 * accuracy:.1f} % of the validation photos correctly, compared with "
        sentence += "90.0 % in its best epoch, in the less precise numbers of training"
        assert found.rounding == (sentence + said if said else "")
    (found.folder / "history.csv").write_text("damaged")
    assert found.rounding == ""
