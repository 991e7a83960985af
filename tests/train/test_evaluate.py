"""Metrics and the table of predictions, on numbers that can be checked by hand."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from features.dataset import load_index
from reports.config import Run
from train.evaluate import measure, predict, prediction_table, softmax
from train.photos import Photos


def test_metrics_by_hand() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32)
    metrics = measure(probabilities, np.array([0, 1], np.int32))
    assert metrics["accuracy"] == 0.5
    assert metrics["top5_accuracy"] == 1.0
    assert metrics["loss"] == pytest.approx(-(math.log(0.5) + math.log(0.2)) / 2, rel=1e-6)


def test_top_5_counts_the_classes_that_are_more_probable() -> None:
    row = np.array([[0.30, 0.25, 0.20, 0.15, 0.06, 0.04]], np.float32)
    found = [measure(row, np.array([label], np.int32))["top5_accuracy"] for label in range(6)]
    assert found == [1, 1, 1, 1, 1, 0]


def test_softmax_of_large_logits_stays_finite() -> None:
    assert softmax(np.array([[1000.0, 0.0]], np.float32)).tolist() == [[1.0, 0.0]]


def test_predictions_do_not_depend_on_the_batch(searched: Run) -> None:
    photos = Photos(searched, load_index(searched), "val")
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs)))
    whole = predict(model, photos, len(photos))
    assert whole.shape == (len(photos), 3)
    assert np.abs(predict(model, photos, 2) - whole).max() < 1e-6
    assert np.abs(whole - photos.pixels(range(len(photos))).mean((1, 2)) / 255).max() < 1e-5


def test_the_table_lists_the_most_probable_classes_first(searched: Run) -> None:
    photos = Photos(searched, load_index(searched), "test")
    probabilities = np.tile(np.array([0.2, 0.5, 0.3], np.float32), (len(photos), 1))
    table = prediction_table([(photos, probabilities)], ("a", "b", "c"))
    assert table["path"].tolist() == photos.paths
    assert (table["split"] == "test").all()
    assert table["class_name"].tolist() == ["abc"[label] for label in photos.labels]
    ranks = [f"{what}_{rank}" for what in ("predicted", "probability") for rank in (1, 2, 3)]
    assert list(table.columns)[4:] == ranks  # three classes: no more than three ranks
    assert table[ranks].iloc[0].tolist() == pytest.approx([1, 2, 0, 0.5, 0.3, 0.2])
