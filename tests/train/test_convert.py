"""Every activation that a head may have, in every format."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest

from features.backbones.pooling_layers import build_pooling
from features.backbones.projection import fit, moments_of
from features.runtime.errors import HeadhuntError
from search.heads import HeadConfig
from train.exports.convert import CONVERTERS, convert
from train.exports.runtimes import RUNTIMES, load_model

ACTIVATIONS = get_args(HeadConfig.model_fields["activation"].annotation)


def test_every_runtime_has_its_converter() -> None:
    assert list(CONVERTERS) == list(RUNTIMES)


def test_every_activation(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3), dtype="uint8", name="photos")
    x = keras.layers.Rescaling(1 / 64, dtype="float32")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, padding="same")(x))
    x = keras.layers.Normalization(mean=np.arange(4), variance=np.arange(1, 5))(x)
    branches = [keras.layers.Activation(name)(keras.layers.Dense(4)(x)) for name in ACTIVATIONS]
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Concatenate()(branches)))
    model = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(5)(x)))
    model.save(tmp_path / "source.keras")
    photos = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    expected = model.predict_on_batch(photos)
    for name, runtime in RUNTIMES.items():
        target = tmp_path / runtime.file
        convert(tmp_path / "source.keras", target, name)
        assert load_model(target, name).run(photos) == pytest.approx(expected, abs=1e-5), name


def test_every_pooling_is_the_same_in_every_format(tmp_path: Path) -> None:
    """All parts of two maps at once, the covariance with its components and its square root among them."""
    keras.utils.set_random_seed(2)
    random = np.random.default_rng(0)
    inputs = keras.Input((24, 24, 3), dtype="uint8", name="photos")
    early = keras.layers.Conv2D(5, 3, strides=2)(keras.layers.Rescaling(1 / 64, dtype="float32")(inputs))
    late = keras.layers.Conv2D(6, 3, strides=2)(early)
    shapes = [tuple(x.shape[1:]) for x in (early, late)]
    projections = [fit(moments_of(random.normal(size=(4, *shape)).astype(np.float32)), 4) for shape in shapes]
    pooled = build_pooling("avg+max+gem:2.5+covariance:4", shapes, projections)([early, late])
    model = keras.Model(inputs, keras.layers.Softmax()(keras.layers.Dense(5)(pooled)))
    model.save(tmp_path / "source.keras")
    photos = random.integers(0, 256, (3, 24, 24, 3), np.uint8)
    expected = model.predict_on_batch(photos)
    assert np.ptp(expected) > 0.1
    for name, runtime in RUNTIMES.items():
        target = tmp_path / runtime.file
        convert(tmp_path / "source.keras", target, name)
        assert load_model(target, name).run(photos) == pytest.approx(expected, abs=2e-5), name


def test_what_a_format_cannot_express_is_one_message(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 64, dtype="float32")(inputs)
    model = keras.Model(inputs, keras.layers.Softmax()(keras.ops.erfinv(keras.ops.mean(x, axis=(1, 2)) / 9)))
    model.save(tmp_path / "source.keras")
    with pytest.raises(HeadhuntError, match=r"source.keras cannot be exported as litert: .*\S. Leave this format out"):
        convert(tmp_path / "source.keras", tmp_path / "model.tflite", "litert")
    assert not (tmp_path / "model.tflite").exists()
