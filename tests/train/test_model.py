"""The whole network: what is trained, what stays frozen, and that the exported form gives the same outputs."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from features.config import FeaturesConfig
from search.heads import HeadConfig
from train.evaluate import softmax
from train.finetuning.heads import space_head
from train.finetuning.model import build_network, deployable
from train.finetuning.unfreeze import unfreeze

HEAD = HeadConfig(units=(8,), batch_norm=True, dropout=0.3)
MOMENTS = (np.full(6, 0.1, np.float32), np.full(6, 0.5, np.float32))


@pytest.fixture
def config(tiny_backbone: Path) -> FeaturesConfig:
    return FeaturesConfig(backbone=str(tiny_backbone), preprocessing="resnet_v2", image_size=(32, 32))


@pytest.mark.parametrize(("count", "names"), [(0, 0), (1, 1), (2, 2), (99, 2)])
def test_the_last_convolutions_and_the_head_train_and_nothing_else(
    config: FeaturesConfig, count: int, names: int
) -> None:
    network = build_network(config, space_head(HEAD, 3, MOMENTS), "float32")
    chosen = unfreeze(network, count)
    backbone = network.get_layer("extractor").get_layer("backbone")
    convolutions = [layer.name for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]
    assert chosen == convolutions[len(convolutions) - names :]
    trained = {variable.path for variable in network.trainable_variables}
    expected = {v.path for layer in backbone.layers if layer.name in chosen for v in layer.weights}
    assert trained == expected | {v.path for v in network.get_layer("head").trainable_variables}


def test_batch_normalisation_of_the_backbone_keeps_its_statistics_to_the_bit(config: FeaturesConfig) -> None:
    network = build_network(config, space_head(HEAD, 3, MOMENTS), "float32")
    unfreeze(network, 2)
    backbone = network.get_layer("extractor").get_layer("backbone")
    frozen = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    convolution = next(layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D))
    before = [weight.numpy().copy() for layer in frozen for weight in layer.weights]
    kernel = convolution.kernel.numpy().copy()
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    photos = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype(np.float32)
    network.fit(photos, np.arange(8) % 3, epochs=2, verbose=0)
    assert len(before) == 4
    for old, weight in zip(before, (w for layer in frozen for w in layer.weights), strict=True):
        assert np.array_equal(old, weight.numpy())
    assert not np.array_equal(kernel, convolution.kernel.numpy())


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_shipped_network_takes_uint8_and_gives_the_same_probabilities(
    config: FeaturesConfig, policy: str, tmp_path: Path
) -> None:
    network = build_network(config, space_head(HEAD, 3, MOMENTS), policy)  # type: ignore[arg-type]
    shipped = deployable(network, config, space_head(HEAD, 3, MOMENTS))
    shipped.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    photos = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    probabilities = loaded.predict(photos, verbose=0)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(1), 1, atol=1e-5)
    logits = network.predict(photos.astype(np.float32), verbose=0)
    assert np.abs(softmax(logits.astype(np.float32)) - probabilities).max() < (1e-5 if policy == "float32" else 2e-2)
