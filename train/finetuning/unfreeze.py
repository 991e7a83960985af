"""What a phase of fine-tuning trains: the layers of the backbone, and each layer's share of the learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from features.backbones.inference import near
from features.runtime.errors import UsageError


def unfreeze(network: Any, what: int | str) -> list[str]:
    """Makes only the head and a part of the backbone trainable; returns the names of the backbone's trainable layers.

    `what`: the number of last convolutional layers (all if the backbone has fewer), `head` (none), `all`, or the name of the
    first layer to train; UsageError for an unknown layer.

    Batch normalisation in backbone and head is set to `trainable=False`, the only way to keep its statistics in Keras 3: a call
    with `training=False` does not. The head's statistics are those of the cached features; in a run of a few epochs they would
    lag behind the changing features.
    """
    import keras

    extractor = network.get_layer("extractor")
    backbone = extractor.get_layer("backbone")
    backbone.trainable = True  # a non-trainable network hides its trainable layers
    inside = leaves(backbone)
    for layer in [*(layer for layer in extractor.layers if layer is not backbone), *inside]:
        layer.trainable = False
    chosen = chosen_layers(backbone, what)
    for layer in chosen:
        layer.trainable = True
    for layer in leaves(network.get_layer("head")):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return [layer.name for layer in chosen]


def rate_factors(network: Any, decay: float) -> dict[str, float]:
    """The share of the learning rate of each trained weight, by path: decay^depth.

    The head has depth 0, the trained layer with a kernel nearest to the output 1, the next one 2; layers in between (a scale, a
    layer norm) share the depth of the kernel after them. Rates that fall towards the input follow Howard and Ruder (ULMFiT,
    2018), who divide by 2.6 per layer.
    """
    head = network.get_layer("head")
    factors = {weight.path: 1.0 for weight in head.trainable_variables}
    depth = 0
    for layer in reversed(leaves(network.get_layer("extractor").get_layer("backbone"))):
        if layer.trainable_variables:
            depth += any("kernel" in weight.name for weight in layer.trainable_variables) or not depth
            factors |= {weight.path: decay**depth for weight in layer.trainable_variables}
    return factors


def leaves(model: Any) -> list[Any]:
    """The layers of a network from input to output, with nested networks replaced by their layers."""
    import keras

    found = []
    for layer in model.layers:
        found += leaves(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def chosen_layers(backbone: Any, what: int | str) -> list[Any]:
    """The layers with weights that `unfreeze` makes trainable, from input to output, without batch normalisation."""
    import keras

    found = [layer for layer in _chosen(leaves(backbone), what) if layer.weights]
    return [layer for layer in found if not isinstance(layer, keras.layers.BatchNormalization)]


def trained_layers(backbone: Any, whats: Iterable[int | str]) -> set[str]:
    """The names of the layers that at least one of these values makes trainable."""
    return {layer.name for what in whats for layer in chosen_layers(backbone, what)}


def _chosen(inside: Sequence[Any], what: int | str) -> list[Any]:
    import keras

    if isinstance(what, int):
        kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
        convolutions = [layer for layer in inside if isinstance(layer, kinds)]
        return convolutions[max(0, len(convolutions) - what) :]
    if what in ("head", "all"):
        return list(inside) if what == "all" else []
    names = [layer.name for layer in inside]
    paths = [getattr(layer, "backbone_path", layer.name) for layer in inside]
    if what not in names and what not in paths:
        raise UsageError(
            f"train.finetune.phases: the backbone has no layer {what!r}.{near(what, paths)} Also allowed: head, all, a number of "
            "layers."
        )
    return list(inside[(names if what in names else paths).index(what) :])
