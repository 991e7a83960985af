"""Predictions of a network or a head, the metrics of them, and the table of predictions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from train.photos import Photos

TOP = 5
"""Classes listed for each photo in the table of predictions."""

Probabilities = npt.NDArray[np.float32]


class Metrics(TypedDict):
    """Of one split: mean cross-entropy, top-1 and top-5 accuracy (shares)."""

    loss: float
    accuracy: float
    top5_accuracy: float


def predict(model: Any, photos: Photos, batch_size: int) -> npt.NDArray[np.float32]:
    """A model's outputs for every clean photo of a split, in order, in batches of one size (the last is padded)."""
    outputs = []
    for start in range(0, len(photos), batch_size):
        positions = np.arange(start, min(start + batch_size, len(photos)))
        pixels = photos.pixels(positions)
        padded = np.zeros((batch_size, *pixels.shape[1:]), model.inputs[0].dtype)
        padded[: len(pixels)] = pixels
        outputs.append(np.asarray(model.predict_on_batch(padded), np.float32)[: len(pixels)])
    return np.concatenate(outputs)


def softmax(logits: npt.NDArray[np.float32]) -> Probabilities:
    """Probabilities (n, classes) of logits (n, classes)."""
    from scipy.special import softmax as stable

    probabilities: Probabilities = stable(logits.astype(np.float64), axis=1).astype(np.float32)
    return probabilities


def measure(probabilities: Probabilities, labels: npt.NDArray[np.int32]) -> Metrics:
    """The metrics of probabilities (n, classes) against labels (n,)."""
    truth = probabilities[np.arange(len(labels)), labels]
    above = (probabilities > truth[:, None]).sum(1)
    return {
        "loss": float(-np.log(np.maximum(truth, 1e-12)).mean()),
        "accuracy": float((probabilities.argmax(1) == labels).mean()),
        "top5_accuracy": float((above < TOP).mean()),
    }


def prediction_table(predicted: Iterable[tuple[Photos, Probabilities]], class_names: tuple[str, ...]) -> pd.DataFrame:
    """One row a photo: path, split, label, class_name, predicted_1…5 (labels) and probability_1…5, the most probable first."""
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
