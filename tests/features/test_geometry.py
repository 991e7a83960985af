"""Merged geometric layers match Keras's layers, up to the difference of resampling once instead of several times."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest

from features.augmentation.geometry import (
    Step,
    apply_transforms,
    flips,
    is_merged,
    merge,
    rotations,
    translations,
    zooms,
)

SIZE = (48, 64)
INSIDE = (slice(None), slice(16, 32), slice(20, 44))
KEYS = [f"0/train/1/{n:064x}" for n in range(2000)]
TRANSLATION = {"height_factor": 0.1, "width_factor": [0.2, 0.4]}


def smooth_image(height: int = 48, width: int = 64) -> np.ndarray:
    """(1, height, width, 3) float32 whose neighbouring pixels differ little, so that half-pixel conventions matter little."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([2 * x, 3 * y, 60 + 60 * np.sin(x / 9) * np.cos(y / 7)], -1)[None]


def one(value: float) -> np.ndarray:
    return np.array([value])


@pytest.mark.parametrize(
    ("layer", "matrices"),
    [
        (keras.layers.RandomRotation((0.1, 0.1)), rotations(one(0.2 * math.pi), SIZE)),
        (keras.layers.RandomZoom((0.2, 0.2)), zooms(one(1.2), one(1.2), SIZE)),
        (keras.layers.RandomZoom((-0.2, -0.2)), zooms(one(0.8), one(0.8), SIZE)),
        (keras.layers.RandomZoom((0.1, 0.1), (-0.3, -0.3)), zooms(one(1.1), one(0.7), SIZE)),
        (keras.layers.RandomTranslation((0.125, 0.125), (0.25, 0.25)), translations(one(0.125), one(0.25), SIZE)),
    ],
    ids=["rotation", "zoom out", "zoom in", "zoom by axis", "translation"],
)
def test_each_step_is_what_the_keras_layer_does(layer: keras.Layer, matrices: np.ndarray) -> None:
    """Interior pixels, to within 1 of 255: Keras's layers may place the centre half a pixel elsewhere."""
    image = smooth_image()
    theirs, ours = np.asarray(layer(image, training=True)), np.asarray(apply_transforms(image, merge([matrices])))
    assert np.abs(theirs[INSIDE] - ours[INSIDE]).max() < 1.0
    assert np.abs(image[INSIDE] - ours[INSIDE]).max() > 3


@pytest.mark.parametrize("mode", ["horizontal", "vertical", "horizontal_and_vertical"])
def test_a_flip_is_one_of_the_two_images_of_keras_exactly(mode: str) -> None:
    image = smooth_image()
    ours = [np.asarray(apply_transforms(image, merge([flips(np.array([chosen]), mode, SIZE)]))) for chosen in (0, 1)]
    layer = keras.layers.RandomFlip(mode, seed=1)
    theirs = {np.asarray(layer(image, training=True)).tobytes() for _ in range(20)}
    assert theirs == {view.tobytes() for view in ours}
    assert len(theirs) == 2


def test_one_resampling_does_all_steps_in_order() -> None:
    """The merged transform against its steps one by one, in two orders; they differ by resampling once or five times."""
    steps = [
        flips(np.array([True]), "horizontal", SIZE),
        rotations(one(0.3), SIZE),
        zooms(one(0.9), one(1.1), SIZE),
        translations(one(-0.05), one(0.1), SIZE),
        rotations(one(-0.1), SIZE),
    ]
    image = smooth_image()
    wholes = []
    for order in (steps, steps[::-1]):
        step_by_step = image
        for step in order:
            step_by_step = np.asarray(apply_transforms(step_by_step, merge([step])))
        wholes.append(np.asarray(apply_transforms(image, merge(order))))
        assert np.abs(wholes[-1][INSIDE] - step_by_step[INSIDE]).max() < 2.0
    assert np.abs(wholes[0][INSIDE] - wholes[1][INSIDE]).max() > 3


@pytest.mark.parametrize(
    ("layer", "arguments", "drawn", "low", "high"),
    [
        ("RandomRotation", {"factor": 0.1}, lambda m: np.arcsin(m[:, 1, 0]) / (2 * math.pi), -0.1, 0.1),
        ("RandomRotation", {"factor": [0.05, 0.2]}, lambda m: np.arcsin(m[:, 1, 0]) / (2 * math.pi), 0.05, 0.2),
        ("RandomZoom", {"height_factor": 0.2}, lambda m: m[:, 1, 1] - 1, -0.2, 0.2),
        ("RandomZoom", {"height_factor": 0.2}, lambda m: m[:, 0, 0] - 1, -0.2, 0.2),
        ("RandomZoom", {"height_factor": [0.3, -0.1]}, lambda m: m[:, 1, 1] - 1, -0.1, 0.3),
        ("RandomZoom", {"height_factor": 0.1, "width_factor": [-0.5, -0.2]}, lambda m: m[:, 0, 0] - 1, -0.5, -0.2),
        ("RandomTranslation", TRANSLATION, lambda m: -m[:, 1, 2] / 48, -0.1, 0.1),
        ("RandomTranslation", TRANSLATION, lambda m: -m[:, 0, 2] / 64, 0.2, 0.4),
    ],
)
def test_draws_fill_the_range_of_the_factor(
    layer: str, arguments: dict[str, Any], drawn: Any, low: float, high: float
) -> None:
    values = drawn(Step(layer, arguments).matrices(KEYS, SIZE))
    assert low - 1e-9 <= values.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < values.max() <= high + 1e-9
    assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))


def test_the_two_axes_of_a_zoom_are_drawn_apart_only_where_the_layer_says_so() -> None:
    alike = Step("RandomZoom", {"height_factor": 0.2}).matrices(KEYS, SIZE)
    apart = Step("RandomZoom", {"height_factor": 0.2, "width_factor": 0.2}).matrices(KEYS, SIZE)
    assert np.array_equal(alike[:, 0, 0], alike[:, 1, 1])
    assert abs(np.corrcoef(apart[:, 0, 0], apart[:, 1, 1])[0, 1]) < 0.1


def test_half_of_the_images_are_flipped() -> None:
    matrices = Step("RandomFlip", {"mode": "horizontal"}).matrices(KEYS, SIZE)
    assert 0.45 < np.mean(matrices[:, 0, 0] < 0) < 0.55
    assert (matrices[:, 1, 1] == 1).all()


def test_a_layer_that_is_there_twice_draws_twice() -> None:
    first, second = (Step("RandomRotation", {"factor": 0.1}, n).matrices(KEYS, SIZE)[:, 1, 0] for n in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("layer", "arguments", "merged"),
    [
        ("RandomFlip", {}, True),
        ("RandomRotation", {"factor": 0.1, "fill_mode": "reflect", "interpolation": "bilinear"}, True),
        ("RandomRotation", {"factor": 0.1, "fill_value": 7.0}, True),  # a reflected edge needs no value
        ("RandomZoom", {"height_factor": 0.1, "fill_mode": "constant"}, False),
        ("RandomTranslation", {**TRANSLATION, "interpolation": "nearest"}, False),
        ("RandomShear", {"x_factor": 0.1}, False),
    ],
)
def test_only_what_is_the_same_resampling_is_merged(layer: str, arguments: dict[str, Any], merged: bool) -> None:
    assert is_merged(layer, arguments) == merged
