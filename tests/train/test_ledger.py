"""The sentence on how often the test photos were used matches what is on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.config import Run
from tests.fabricated import fabricate_promotion
from train.ledger import ledger_sentence, record_test_evaluation
from train.ledger_summary import models_with_test_numbers, usage_of_test_photos


@pytest.mark.parametrize(
    ("counted", "tested", "sentence"),
    [
        ([], set(), "The test photos were not used."),
        (["a"], {"a"}, "The test photos were used once."),
        (["a"], set(), "The test photos were used once."),  # its promotion was deleted
        (
            ["a", "b", "a"],
            {"a"},
            "The test photos were evaluated 3 times, on 2 models; test_ledger.csv lists when and by which command.",
        ),
        (
            [],
            {"a"},
            "The test photos were evaluated at least 1 time, on 1 model; test_ledger.csv has no line for 1 of the models, "
            "because earlier versions wrote none.",
        ),
        (
            ["c"],
            {"a", "b", "c"},
            "The test photos were evaluated at least 3 times, on 3 models; test_ledger.csv has no line for 2 of the models, "
            "because earlier versions wrote none.",
        ),
    ],
)
def test_what_it_says(tmp_path: Path, counted: list[str], tested: set[str], sentence: str) -> None:
    for model in counted:
        record_test_evaluation(tmp_path, "train promote", model, 30)
    assert ledger_sentence(tmp_path, tested) == sentence


def test_what_has_test_numbers_is_compared_with_the_ledger(searched: Run) -> None:
    assert usage_of_test_photos(searched) == "The test photos were not used."
    number = fabricate_promotion(searched)  # as made by an earlier version: evaluated but not counted
    names = {f"{what} of {number}-0a1b2c3d" for what in ("frozen head", "exported network")}
    assert models_with_test_numbers(searched) == names
    assert "at least 2 times, on 2 models" in usage_of_test_photos(searched)
    record_test_evaluation(searched.workdir, "train baselines", "linear probe", 3)
    assert "at least 3 times, on 3 models" in usage_of_test_photos(searched)
    for name in names:
        record_test_evaluation(searched.workdir, "train promote", name, 3)
    assert usage_of_test_photos(searched).startswith("The test photos were evaluated 3 times, on 3 models;")
