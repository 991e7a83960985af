"""What a phase of fine-tuning trains: which layers of the backbone, and how much of the rate each of them gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from features.backbones.inference import near
from features.runtime.errors import UsageError


def unfreeze(network: Any, what: int | str) -> list[str]:
    """Makes the head and a part of the backbone trainable, and nothing else; gives the names of the backbone's layers.

    `what`: the number of last convolutional layers (all of them, where it has fewer), `head` (none), `all`, or the name of the
    layer from which on everything is trained; UsageError for a layer that there is not.

    Batch normalisation, of the backbone and of the head, is set `trainable=False`, the only thing that keeps its statistics in
    Keras 3: a call with `training=False` does not. The head's are those of the cached features; a run of a few epochs would leave
    them behind the features that it changes.
    """
    import keras

    extractor = network.get_layer("extractor")
    backbone = extractor.get_layer("backbone")
    backbone.trainable = True  # a network that is not trainable hides the layers in it that are
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
    """The share of the learning rate that each trained weight gets, by its path: decay^depth.

    The head has depth 0, the trained layer with a kernel that is nearest to the output 1, the next one 2; what lies between (a
    scale, a layer's norm) shares the depth of the kernel behind it. Rates that fall towards the input are those of Howard and
    Ruder (ULMFiT, 2018), who divide by 2.6.
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
    """The layers of a network from input to output, those of networks inside it among them."""
    import keras

    found = []
    for layer in model.layers:
        found += leaves(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def chosen_layers(backbone: Any, what: int | str) -> list[Any]:
    """The layers with weights that `unfreeze` makes trainable, from input to output; batch normalisation is none of them."""
    import keras

    found = [layer for layer in _chosen(leaves(backbone), what) if layer.weights]
    return [layer for layer in found if not isinstance(layer, keras.layers.BatchNormalization)]


def trained_layers(backbone: Any, whats: Iterable[int | str]) -> set[str]:
    """The names of the layers that any of these makes trainable."""
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
            f"train.finetune.phases: the backbone has no layer {what!r}.{near(what, paths)} Allowed besides: head, all, a number "
            "of layers."
        )
    return list(inside[(names if what in names else paths).index(what) :])
