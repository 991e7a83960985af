"""A promoted network's predictions for validation and test photos: the predictions.csv of its promotion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.dataset.index import DatasetIndex, load_index
from features.runtime.errors import HeadhuntError
from features.runtime.log import relative
from features.runtime.own_tables import read_whole_table
from train.config import TrainRun
from train.evaluate import TOP
from train.promotion.artifact import Promotion

PREDICTIONS = "predictions.csv"


class Predictions(NamedTuple):
    """A promoted network's predictions for the n photos of a split, in index order.

    `trial` and `stage` (frozen or fine-tuned) are the promotion's. `labels` (n,) are the true ones; `predicted` and
    `probabilities` (n, at most 5 classes) have the most probable first.
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
        """Whether the most probable class of each photo is the true one: (n,) bool."""
        first: npt.NDArray[np.int64] = self.predicted[:, 0]
        return np.equal(first, self.labels)


def read_predictions(run: TrainRun, promotion: Promotion, split: str) -> Predictions:
    """The predictions of a split, as written by `train.evaluate.prediction_table`.

    Raises HeadhuntError if they are missing or damaged, or if their photos, labels or classes do not match the index.
    """
    path = promotion.folder / PREDICTIONS
    again = "Delete its folder, then rerun `headhunt train promote`."
    ranks = range(1, TOP + 1)
    try:
        table = read_whole_table(
            path,
            {
                "keep_default_na": False,  # a class may be called NA
                "na_values": {f"probability_{rank}": [""] for rank in ranks},
                "dtype": {"path": str, "class_name": str},
            },
        )
    except FileNotFoundError:
        raise HeadhuntError(f"{relative(path)} is missing. {again}") from None
    except (ValueError, OSError) as error:  # pandas raises these for a truncated file
        raise HeadhuntError(f"{relative(path)} is damaged ({str(error).splitlines()[0]}). {again}") from None
    needed = {"path", "split", "label", "class_name", "predicted_1", "probability_1"}
    if not needed <= set(table):
        raise HeadhuntError(
            f"{relative(path)} is damaged (it has no {', '.join(sorted(needed - set(table)))}). {again}"
        )
    rows = table[table["split"] == split].reset_index(drop=True)
    numbers = rows[[name for name in rows if str(name).startswith(("label", "predicted_", "probability_"))]]
    texts = list(numbers.select_dtypes(exclude="number"))
    if texts and len(rows):
        raise HeadhuntError(f"{relative(path)} is damaged ({texts[0]} has values that are not numbers). {again}")
    index = load_index(run)
    if fault := _other_photos(index, rows, split):
        raise HeadhuntError(f"{relative(path)} is damaged or does not match the index: {fault}. {again}")
    listed = [rank for rank in ranks if f"predicted_{rank}" in rows]
    return Predictions(
        promotion.trial,
        promotion.stage,
        index.class_names,
        rows["path"].astype(str).tolist(),
        rows["label"].to_numpy(np.int64),
        rows[[f"predicted_{rank}" for rank in listed]].to_numpy(np.int64),
        rows[[f"probability_{rank}" for rank in listed]].to_numpy(np.float64),
    )


def _other_photos(index: DatasetIndex, rows: pd.DataFrame, split: str) -> str:
    """How the rows differ from the index, which may have been prepared again since; empty if they match."""
    photos, classes = index.of_split(split), len(index.class_names)
    if len(rows) != len(photos):
        return f"it has {len(rows)} {split} photos, the index {len(photos)}"
    if rows["path"].tolist() != photos["path"].tolist():
        return f"its {split} photos are different or in another order"
    if rows["label"].tolist() != photos["label"].tolist():
        return f"its {split} photos have different labels"
    predicted = rows[[name for name in rows if str(name).startswith("predicted_")]]
    if not predicted.isin(range(classes)).all(axis=None):
        return f"it contains a label that is not one of the {classes} classes (numbered from 0)"
    return ""
