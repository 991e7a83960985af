"""What the best promoted model said about the test photos."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.dataset.index import load_index
from features.runtime.errors import HeadhuntError
from reports.config import Run
from reports.section import LeftOutError
from train.promotion.artifact import damaged_promotions, find_promotions
from train.promotion.predictions import read_predictions


class Predictions(NamedTuple):
    """A promoted trial, what its network is (frozen or fine-tuned), and its table, a row for each of n test photos, as
    `train.evaluate.prediction_table` wrote it.

    `labels` (n,) are the true ones; `predicted` and `probabilities` (n, classes, at most 5) the most probable first.
    """

    trial: int
    stage: str
    class_names: tuple[str, ...]
    paths: list[str]
    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each photo is named rightly: (n,)."""
        first: npt.NDArray[np.int64] = self.predicted[:, 0]
        return np.equal(first, self.labels)


def load_predictions(run: Run) -> Predictions:
    """Those of the best promotion; LeftOutError where nothing is promoted, HeadhuntError where they are damaged."""
    found = find_promotions(run)
    if not found:
        for damage in damaged_promotions(run):
            raise HeadhuntError(damage)
        raise LeftOutError("Errors are those of a promoted model: `headhunt train promote`.")
    best = found[0]
    if "test" not in best.metrics.tuned:
        raise LeftOutError("The test photos were not evaluated: `train.evaluate_test` is false.")
    table = read_predictions(run, best, "test")
    ranks = range(1, sum(str(name).startswith("predicted_") for name in table) + 1)
    return Predictions(
        best.trial,
        best.stage,
        load_index(run).class_names,
        table["path"].astype(str).tolist(),
        table["label"].to_numpy(np.int64),
        table[[f"predicted_{rank}" for rank in ranks]].to_numpy(np.int64),
        table[[f"probability_{rank}" for rank in ranks]].to_numpy(np.float64),
    )
