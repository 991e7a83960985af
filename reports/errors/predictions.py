"""What the best promoted model said about the test photos."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.dataset import load_index
from reports.config import Run
from reports.section import LeftOutError
from train.evaluate import TOP
from train.promotion.promote import promoted
from train.promotion.worker import promotion_folder


class Predictions(NamedTuple):
    """A promoted trial and its table, a row for each of n test photos, as `train.evaluate.prediction_table` wrote it.

    `labels` (n,) are the true ones; `predicted` and `probabilities` (n, classes, at most 5) the most probable first.
    """

    trial: int
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
    """Those of the trial with the best validation accuracy; LeftOutError where nothing is promoted."""
    numbers = promoted(run)
    if not numbers:
        raise LeftOutError("Errors are those of a promoted model: `headhunt train promote`.")
    table = pd.read_csv(
        promotion_folder(run, numbers[0]) / "predictions.csv",
        keep_default_na=False,  # a class may be called NA
        na_values={f"probability_{rank}": [""] for rank in range(1, TOP + 1)},
    ).query("split == 'test'")
    ranks = range(1, sum(str(name).startswith("predicted_") for name in table) + 1)
    return Predictions(
        numbers[0],
        load_index(run).class_names,
        table["path"].astype(str).tolist(),
        table["label"].to_numpy(np.int64),
        table[[f"predicted_{rank}" for rank in ranks]].to_numpy(np.int64),
        table[[f"probability_{rank}" for rank in ranks]].to_numpy(np.float64),
    )
