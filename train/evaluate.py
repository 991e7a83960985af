"""Predictions of a network or a head, their metrics, the table of predictions and the table of classes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from search.metric import Metric
from search.ranking import Score
from search.top5 import TOP as TOP  # classes listed for each photo in the table of predictions
from train.photos import Photos

Probabilities = npt.NDArray[np.float32]


BINS = 15
"""Bins of the expected calibration error, as in Guo et al. (2017)."""


class Metrics(BaseModel):
    """Metrics of one split: mean cross-entropy, top-1 and top-5 accuracy (shares), expected calibration error (a share; None in
    files of earlier versions, which did not measure it)."""

    model_config = ConfigDict(frozen=True)

    loss: float
    accuracy: float
    top5_accuracy: float
    ece: float | None = None

    def score(self, objective: Metric) -> Score:
        """The score of these metrics, which must be those of the validation photos."""
        return Score.of(objective, getattr(self, objective.removeprefix("val_")), self.loss)

    @model_serializer(mode="wrap")
    def _measured(self, plain: SerializerFunctionWrapHandler) -> dict[str, float]:
        return {name: value for name, value in plain(self).items() if value is not None}


class SplitMetrics(BaseModel):
    """Metrics by split; None for a split that was not evaluated, which is omitted in files."""

    model_config = ConfigDict(frozen=True)

    train: Metrics | None = None
    val: Metrics
    test: Metrics | None = None

    def evaluated(self) -> dict[str, Metrics]:
        """The splits that were evaluated, in the order train, val, test."""
        each = {"train": self.train, "val": self.val, "test": self.test}
        return {split: metrics for split, metrics in each.items() if metrics is not None}

    @model_serializer(mode="wrap")
    def _evaluated(self, plain: SerializerFunctionWrapHandler) -> dict[str, dict[str, float]]:
        return {split: metrics for split, metrics in plain(self).items() if metrics is not None}


class Examples(Protocol):
    """Inputs for a model, by position: photos of a split, or their activations."""

    labels: npt.NDArray[np.int32]

    def __len__(self) -> int: ...

    def inputs(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The model inputs for the examples at these positions."""
        ...


def predict(
    model: Any, examples: Examples, batch_size: int, positions: npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.float32]:
    """A model's outputs (n, ...) for the examples at these positions (default: all), in batches of equal size (the last is
    padded)."""
    wanted = np.arange(len(examples)) if positions is None else positions
    outputs = []
    for start in range(0, len(wanted), batch_size):
        given = examples.inputs(wanted[start : start + batch_size])
        padded = np.zeros((batch_size, *given.shape[1:]), model.inputs[0].dtype)
        padded[: len(given)] = given
        outputs.append(np.asarray(model.predict_on_batch(padded), np.float32)[: len(given)])
    return np.concatenate(outputs)


def softmax(logits: npt.NDArray[np.float32]) -> Probabilities:
    """Probabilities (n, classes) of logits (n, classes)."""
    from scipy.special import softmax as stable

    probabilities: Probabilities = stable(logits.astype(np.float64), axis=1).astype(np.float32)
    return probabilities


def measure(probabilities: Probabilities, labels: npt.NDArray[np.int32]) -> Metrics:
    """The metrics of probabilities (n, classes) against labels (n,).

    Among equally probable classes the one with the lower label comes first, as in the table of predictions. A photo with NaN
    probabilities counts as wrong.
    """
    truth = probabilities[np.arange(len(labels)), labels][:, None]
    not_earlier = np.arange(probabilities.shape[1]) >= labels[:, None]
    above = (~((probabilities < truth) | ((probabilities == truth) & not_earlier))).sum(1)
    return Metrics(
        loss=float(-np.log(np.maximum(truth, 1e-12)).mean()),
        accuracy=float((above == 0).mean()),
        top5_accuracy=float((above < TOP).mean()),
        ece=calibration_error(probabilities.max(1), above == 0),
    )


def calibration_error(confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> float:
    """The expected calibration error, from the probability of the most probable class (n,) and whether it was right (n,).

    Photos are grouped by confidence into BINS bins of equal width, (0, 1/15], (1/15, 2/15], …; the error is the mean absolute
    difference between a bin's accuracy and its mean confidence, weighted by its number of photos (Guo et al., "On Calibration of
    Modern Neural Networks", 2017, equation 3). NaN if a confidence is NaN.
    """
    if not np.isfinite(confidence).all():
        return math.nan
    gaps = np.bincount(confidence_bins(confidence), right.astype(np.float64) - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def confidence_bins(confidence: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """The bin, from 0, of each of these probabilities (n,): (0, 1/15] is bin 0, which also contains 0."""
    bins: npt.NDArray[np.int64] = np.ceil(confidence.astype(np.float64) * BINS).astype(np.int64) - 1
    return np.clip(bins, 0, BINS - 1)


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` photos (Wilson, 1927), which stays within 0 and 1 and is valid for few photos."""
    from scipy.stats import binomtest

    interval = binomtest(round(share * count), count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def class_table(predicted: Iterable[tuple[Photos, Probabilities]], class_names: tuple[str, ...]) -> pd.DataFrame:
    """One row per class: label, class_name, and for each split its number of photos, the share of them predicted correctly
    (accuracy), and the share of the photos predicted as this class that belong to it (precision). NaN for a share of no
    photos."""
    classes = len(class_names)
    table = pd.DataFrame({"label": np.arange(classes), "class_name": list(class_names)})
    for photos, probabilities in predicted:
        named = probabilities.argmax(1)
        images = np.bincount(photos.labels, minlength=classes)
        right = np.bincount(photos.labels[named == photos.labels], minlength=classes).astype(np.float64)
        table[f"{photos.split}_images"] = images
        for what, of in (("accuracy", images), ("precision", np.bincount(named, minlength=classes))):
            table[f"{photos.split}_{what}"] = np.divide(right, of, out=np.full(classes, np.nan), where=of > 0)
    return table


def prediction_table(predicted: Iterable[tuple[Photos, Probabilities]], class_names: tuple[str, ...]) -> pd.DataFrame:
    """One row per photo: path, split, label, class_name, predicted_1…5 (labels) and probability_1…5, most probable first."""
    tables = []
    for photos, probabilities in predicted:
        top = min(TOP, probabilities.shape[1])
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        table = pd.DataFrame(
            {
                "path": photos.paths,
                "split": photos.split,
                "label": photos.labels,
                "class_name": [class_names[label] for label in photos.labels],
            }
        )
        for rank in range(top):
            table[f"predicted_{rank + 1}"] = order[:, rank]
        for rank in range(top):
            table[f"probability_{rank + 1}"] = probabilities[np.arange(len(photos)), order[:, rank]]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
