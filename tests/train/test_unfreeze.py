"""Which layers are trained when the backbone contains nested networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from features.config import FeaturesConfig
from features.runtime.errors import UsageError
from search.heads import HeadConfig
from train.finetuning.heads import space_head
from train.finetuning.model import build_network
from train.finetuning.unfreeze import unfreeze

MOMENTS = (np.zeros(6, np.float32), np.ones(6, np.float32))


@pytest.fixture
def network(tmp_path: Path) -> Any:
    """A head on a backbone of conv_a, a nested network of (conv_b, BatchNormalization, conv_c), and conv_d."""
    inside = keras.Input((16, 16, 4))
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv_b")(inside)
    x = keras.layers.BatchNormalization(name="inner_bn")(x)
    block = keras.Model(inside, keras.layers.DepthwiseConv2D(3, name="conv_c")(x), name="block")
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="conv_a")(inputs)
    keras.Model(inputs, keras.layers.Conv2D(6, 1, name="conv_d")(block(x))).save(tmp_path / "nested.keras")
    config = FeaturesConfig(backbone=str(tmp_path / "nested.keras"), preprocessing="resnet_v2", image_size=(32, 32))
    head = HeadConfig(units=(4,), batch_norm=True)
    return build_network(config, space_head(head, 3, MOMENTS), "float32")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_convolutions_inside_count_from_the_output(network: Any, count: int) -> None:
    unfreeze(network, 4)  # what was unfrozen before does not matter
    names = unfreeze(network, count)
    assert names == ["conv_a", "conv_b", "conv_c", "conv_d"][4 - count :]
    assert (
        len(network.trainable_variables) == 2 * count + 4
    )  # kernel and bias of each, of the hidden layer and the classifier
    assert not any("bn" in variable.path for variable in network.trainable_variables)


def test_statistics_inside_and_of_the_head_stay_to_the_bit(network: Any) -> None:
    unfreeze(network, 4)
    inside = network.get_layer("extractor").get_layer("backbone").get_layer("inner_bn")
    weights = [*inside.weights, *network.get_layer("head").get_layer("hidden_1_bn").weights]
    before = [np.array(weight) for weight in weights]
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    photos = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype(np.float32)
    network.fit(photos, np.arange(8) % 3, verbose=0)
    for old, weight in zip(before, weights, strict=True):
        assert np.array_equal(old, weight)


def test_a_layer_of_a_network_in_it_goes_by_its_name_or_its_path(network: Any) -> None:
    assert unfreeze(network, "block/conv_c") == unfreeze(network, "conv_c") == ["conv_c", "conv_d"]
    with pytest.raises(UsageError, match=r"no layer 'block/conv_x'\. Did you mean block/conv_c or block/conv_b"):
        unfreeze(network, "block/conv_x")
