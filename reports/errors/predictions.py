"""The best promoted model's predictions on the test photos."""

from __future__ import annotations

from features.runtime.errors import HeadhuntError
from reports.config import Run
from reports.section import LeftOutError
from train.promotion.artifact import damaged_promotions, find_promotions
from train.promotion.predictions import Predictions, read_predictions


def load_predictions(run: Run) -> Predictions:
    """The predictions of the best promotion; LeftOutError if nothing is promoted or test photos were not evaluated, HeadhuntError
    if they are damaged."""
    found = find_promotions(run)
    if not found:
        for damage in damaged_promotions(run):
            raise HeadhuntError(damage)
        raise LeftOutError("Errors are shown only for a promoted model: run `headhunt train promote`.")
    if found[0].tuned.test is None:
        raise LeftOutError("The test photos were not evaluated: `train.evaluate_test` is false.")
    return read_predictions(run, found[0], "test")
