"""Backbone and head as one Keras model: for fine-tuning, and as it is shipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from features.backbones import image_size
from features.config import FeaturesConfig
from features.networks import build_extractor
from search.heads import HeadConfig, build_head, set_head_weights

Policy = Literal["float32", "mixed_bfloat16"]


def build_network(
    features: FeaturesConfig,
    head: HeadConfig,
    classes: int,
    moments: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    policy: Policy,
) -> Any:
    """Photos (batch, h, w, 3) float32 in 0…255 to logits (batch, classes): a keras.Model of the layers "extractor" and "head"."""
    import keras

    extractor = build_extractor(features, policy)
    top = build_head(head, tuple(extractor.output.shape[1:]), classes, moments)
    inputs = keras.Input((*image_size(features), 3), dtype="float32", name="photos")
    return keras.Model(inputs, top(extractor(inputs)), name="network")


def set_head(network: Any, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Gives the network's head the weights of a trial."""
    set_head_weights(network.get_layer("head"), weights)


def unfreeze(network: Any, conv_layers: int) -> list[str]:
    """Makes the head and the last `conv_layers` convolutional layers of the backbone trainable, and nothing else; their names.

    Batch normalisation, of the backbone and of the head, is set `trainable=False`, the only thing that keeps its statistics in
    Keras 3: a call with `training=False` does not. The head's are those of the cached features; a run of a few epochs would leave
    them behind the features that it changes.
    """
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    extractor = network.get_layer("extractor")
    backbone = extractor.get_layer("backbone")
    backbone.trainable = True  # a network that is not trainable hides the layers in it that are
    leaves = _leaves(backbone)
    for layer in [*(layer for layer in extractor.layers if layer is not backbone), *leaves]:
        layer.trainable = False
    convolutions = [layer for layer in leaves if isinstance(layer, kinds)]
    chosen = convolutions[-conv_layers:] if conv_layers else []
    for layer in chosen:
        layer.trainable = True
    for layer in network.get_layer("head").layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return [layer.name for layer in chosen]


def _leaves(model: Any) -> list[Any]:
    """The layers of a network from input to output, those of networks inside it among them."""
    import keras

    found = []
    for layer in model.layers:
        found += _leaves(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def deployable(network: Any, features: FeaturesConfig, head: HeadConfig, classes: int, moments: Any) -> Any:
    """The network as it is shipped: uint8 photos (batch, h, w, 3) to probabilities (batch, classes) float32.

    Preprocessing and softmax are inside, every layer is one of Keras's own and computes in float32: plain Keras loads it.
    """
    import keras

    copy = build_network(features, head, classes, moments, "float32")
    copy.set_weights(network.get_weights())
    inputs = keras.Input((*image_size(features), 3), dtype="uint8", name="photos")
    photos = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(inputs)
    logits = copy.get_layer("head")(copy.get_layer("extractor")(photos))
    return keras.Model(inputs, keras.layers.Softmax(name="probabilities")(logits), name="headhunt")
