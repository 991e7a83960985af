"""Backbone and head as one Keras model: for fine-tuning and for export."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from features.backbones.networks import build_extractor, preprocessing_layers, suffix_of
from features.backbones.projection import Projection
from features.backbones.table import image_size, pooling
from features.config import FeaturesConfig
from features.pooling import parse_pooling, pooling_name
from search.trial import TrialConfig
from train.finetuning.heads import TrialHead
from train.finetuning.unfreeze import leaves

Policy = Literal["float32", "mixed_bfloat16"]


def build_network(
    features: FeaturesConfig,
    head: TrialHead,
    policy: Policy,
    projections: Sequence[Projection] = (),
) -> Any:
    """A keras.Model from photos (batch, h, w, 3) float32 in 0…255 to logits (batch, classes), with layers "extractor" and "head".

    `features` is the section for the features that the head sees (see `features_of`), `projections` are their cache's.
    """
    import keras

    extractor = build_extractor(features, policy, projections)
    top = head.build(tuple(extractor.output.shape[1:]))
    inputs = keras.Input((*image_size(features), 3), dtype="float32", name="photos")
    return keras.Model(inputs, top(extractor(inputs)), name="network")


def features_of(features: FeaturesConfig, config: TrialConfig) -> FeaturesConfig:
    """The features section with the pooling that a trial's head sees: all cached parts, or its own, in the cache's order."""
    if config.features.parts is None:
        return features
    wanted = parse_pooling(config.features.parts)
    parts = [part for part in parse_pooling(pooling(features)) if part in wanted]
    return features.model_copy(update={"pooling": pooling_name(parts)})


def find_cut(backbone: Any, trained: Set[str]) -> str | None:
    """The last layer of a backbone before all layers with these names (also in nested networks) that no path bypasses.

    None if there is none: the trained part begins with the first layer, or every layer before it can be bypassed.
    """
    import keras

    def holds(layer: Any) -> bool:
        inside = (
            [layer.name, *(leaf.name for leaf in leaves(layer))] if isinstance(layer, keras.Model) else [layer.name]
        )
        return not trained.isdisjoint(inside)

    first = next(number for number, layer in enumerate(backbone.layers) if holds(layer))
    for layer in reversed(backbone.layers[:first]):
        if not isinstance(layer, keras.layers.InputLayer) and suffix_of(backbone, layer.name) is not None:
            return str(layer.name)
    return None


@dataclass(frozen=True)
class Trainees:
    """A network's models for training, which share its layers; the backbone, including its dropout, runs in inference mode.

    `on_photos`: photos (batch, h, w, 3) float32 to logits; `on_activations`: the frozen part's outputs to logits, None if no part
    of the backbone can be split off.
    """

    on_photos: Any
    on_activations: Any | None


def trainees(network: Any, features: FeaturesConfig, trained: Set[str]) -> Trainees:
    """The models that train these layers of the network's backbone and the head."""
    import keras

    extractor, head = network.get_layer("extractor"), network.get_layer("head")
    pool = extractor.get_layer("pooling")
    backbone = extractor.get_layer("backbone")
    inputs = keras.Input((*image_size(features), 3), dtype="float32", name="photos")
    stored = features.dtype
    if not trained:
        activation = keras.Input(extractor.output.shape[1:], dtype=stored, name="activations")
        return Trainees(keras.Model(inputs, head(extractor(inputs))), keras.Model(activation, head(activation)))
    cut = find_cut(backbone, trained)
    if cut is None:
        return Trainees(network, None)
    middle = backbone.get_layer(cut).output
    prefix = keras.Model(backbone.input, middle)
    suffix: Any = suffix_of(backbone, cut)
    x: Any = inputs
    for layer in preprocessing_layers(features):
        x = layer(x)
    whole = keras.Model(inputs, head(pool(suffix(prefix(x)))))
    activation = keras.Input(middle.shape[1:], dtype=stored, name="activations")
    return Trainees(whole, keras.Model(activation, head(pool(suffix(activation)))))


def deployable(
    network: Any,
    features: FeaturesConfig,
    head: TrialHead,
    projections: Sequence[Projection] = (),
) -> Any:
    """The network for export: uint8 photos (batch, h, w, 3) to probabilities (batch, classes) float32.

    It includes preprocessing and softmax; every layer is Keras's own and computes in float32, so that plain Keras can load it.
    """
    import keras

    copy = build_network(features, head, "float32", projections)
    copy.set_weights(network.get_weights())
    inputs = keras.Input((*image_size(features), 3), dtype="uint8", name="photos")
    photos = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(inputs)
    logits = copy.get_layer("head")(copy.get_layer("extractor")(photos))
    return keras.Model(inputs, keras.layers.Softmax(name="probabilities")(logits), name="headhunt")
