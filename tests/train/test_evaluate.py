"""Metrics and the table of predictions, on numbers that can be checked by hand."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from features.dataset.index import load_index
from reports.config import Run
from train.evaluate import calibration_error, class_table, measure, predict, prediction_table, softmax, wilson_interval
from train.photos import Photos


def test_metrics_by_hand() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32)
    metrics = measure(probabilities, np.array([0, 1], np.int32))
    assert metrics.accuracy == 0.5
    assert metrics.top5_accuracy == 1.0
    assert metrics.loss == pytest.approx(-(math.log(0.5) + math.log(0.2)) / 2, rel=1e-6)


def test_top_5_counts_the_classes_that_are_more_probable() -> None:
    row = np.array([[0.30, 0.25, 0.20, 0.15, 0.06, 0.04]], np.float32)
    found = [measure(row, np.array([label], np.int32)).top5_accuracy for label in range(6)]
    assert found == [1, 1, 1, 1, 1, 0]


def test_of_equally_probable_classes_the_first_count() -> None:
    row = np.full((1, 8), 1 / 8, np.float32)
    found = [measure(row, np.array([label], np.int32)) for label in range(8)]
    assert [metrics.top5_accuracy for metrics in found] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert [metrics.accuracy for metrics in found] == [1, 0, 0, 0, 0, 0, 0, 0]


def test_what_is_not_a_number_is_not_right() -> None:
    metrics = measure(np.full((2, 3), np.nan, np.float32), np.array([0, 2], np.int32))
    assert (metrics.accuracy, metrics.top5_accuracy) == (0, 1)  # three classes are always among the first five
    assert math.isnan(metrics.ece)


def test_calibration_error_by_hand() -> None:
    # bins of 1/15: 0.95 and 0.97 share the last but … (14/15, 1], 0.5 is in (7/15, 8/15], 0.40 at an edge belongs to (5/15, 6/15]
    confidence = np.array([0.95, 0.97, 0.5, 0.40])
    right = np.array([True, False, True, False])
    wanted = (abs(0.5 - 0.96) * 2 + abs(1 - 0.5) + abs(0 - 0.40)) / 4
    assert calibration_error(confidence, right) == pytest.approx(wanted)
    assert calibration_error(np.ones(3), np.ones(3, np.bool_)) == 0
    probabilities = np.array([[0.95, 0.05], [0.97, 0.03], [0.5, 0.5], [0.6, 0.4]], np.float32)
    assert measure(probabilities, np.array([0, 1, 0, 0], np.int32)).ece == pytest.approx(
        (0.46 * 2 + 0.5 + 0.4) / 4, abs=1e-6
    )


def test_wilson_intervals_are_those_of_the_formula() -> None:
    z, n, p = 1.959964, 40, 0.9
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    wanted = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    assert wilson_interval(p, n) == pytest.approx(wanted, abs=1e-6)
    low, high = wilson_interval(1.0, 10)
    assert 0.7 < low < high == 1


def test_classes_without_a_photo_have_empty_cells(searched: Run) -> None:
    photos = Photos(searched, load_index(searched), "test")
    photos.labels = np.array([0, 0, 2][: len(photos)], np.int32)
    probabilities = np.eye(4, dtype=np.float32)[[0, 2, 2][: len(photos)]]
    table = class_table([(photos, probabilities)], ("a", "b", "c", "d"))
    assert table.columns.tolist() == ["label", "class_name", "test_images", "test_accuracy", "test_precision"]
    assert table["test_images"].tolist() == [2, 0, 1, 0]
    assert table["test_accuracy"].tolist() == pytest.approx([0.5, math.nan, 1, math.nan], nan_ok=True)
    assert table["test_precision"].tolist() == pytest.approx([1, math.nan, 0.5, math.nan], nan_ok=True)
    assert table.to_csv(index=False).splitlines()[2] == "1,b,0,,"


def test_softmax_of_large_logits_stays_finite() -> None:
    assert softmax(np.array([[1000.0, 0.0]], np.float32)).tolist() == [[1.0, 0.0]]


def test_predictions_do_not_depend_on_the_batch(searched: Run) -> None:
    photos = Photos(searched, load_index(searched), "val")
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs)))
    whole = predict(model, photos, len(photos))
    assert whole.shape == (len(photos), 3)
    assert np.abs(predict(model, photos, 2) - whole).max() < 1e-6
    assert np.abs(whole - photos.inputs(range(len(photos))).mean((1, 2)) / 255).max() < 1e-5


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
