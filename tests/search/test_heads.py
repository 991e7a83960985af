"""Heads become Keras models of stock layers, with weights by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from features.audit.moments import feature_moments
from features.runtime.errors import HeadhuntError
from search.heads import HeadConfig, build_head, set_head_weights

MOMENTS = (np.zeros(6, np.float32), np.ones(6, np.float32))


@pytest.mark.parametrize(
    "head",
    [
        HeadConfig(),
        HeadConfig(units=(8,), dropout=0.5),
        HeadConfig(units=(8, 4, 3), batch_norm=True, activation="gelu", standardize=False),
    ],
)
@pytest.mark.parametrize("shape", [(6,), (3, 3, 6)])
def test_a_head_saves_and_loads_with_plain_keras(head: HeadConfig, shape: tuple[int, ...], tmp_path: Path) -> None:
    model = build_head(head, shape, 5, MOMENTS)
    features = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    expected = model.predict(features, verbose=0)
    assert expected.shape == (4, 5)
    model.save(tmp_path / "head.keras")
    assert np.allclose(
        keras.saving.load_model(tmp_path / "head.keras").predict(features, verbose=0), expected, atol=1e-6
    )
    dense = [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert dense == [*head.units, 5]


def test_standardising_gives_mean_0_and_deviation_1_also_for_a_constant_feature() -> None:
    features = np.random.default_rng(0).normal(3, 5, (200, 6)).astype(np.float32)
    features[:, 2] = 7
    mean, variance = feature_moments(features.astype(np.float16))
    assert variance[2] > 0
    model = build_head(HeadConfig(), (6,), 5, (mean, variance))
    scaled = np.asarray(keras.Model(model.input, model.get_layer("standardize").output)(features))
    assert np.abs(scaled.mean(0)).max() < 0.01
    assert np.abs(np.delete(scaled.std(0), 2, 0) - 1).max() < 0.01
    other = features.copy()
    other[:, 2] += 1
    assert np.abs(np.asarray(keras.Model(model.input, model.get_layer("standardize").output)(other))).max() < 100


def head_weights(model: Any) -> dict[str, Any]:
    return {f"{layer.name}.{weight.name}": np.asarray(weight) for layer in model.layers for weight in layer.weights}


def test_weights_go_by_name_and_another_heads_are_refused() -> None:
    first = build_head(HeadConfig(units=(8,)), (6,), 5, MOMENTS, seed=1)
    second = build_head(HeadConfig(units=(8,)), (6,), 5, MOMENTS, seed=2)
    assert not np.array_equal(head_weights(first)["hidden_1.kernel"], head_weights(second)["hidden_1.kernel"])
    set_head_weights(second, head_weights(first))
    for name, value in head_weights(first).items():
        assert np.array_equal(head_weights(second)[name], value)
    with pytest.raises(
        HeadhuntError, match=r"the stored weights belong to another head: classifier\.bias, classifier\.kernel"
    ):
        set_head_weights(build_head(HeadConfig(), (6,), 8, MOMENTS), head_weights(first))
