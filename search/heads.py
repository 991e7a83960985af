"""HeadConfig: a classifier head on cached features, and how to build it as a Keras model of stock layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from features.runtime.errors import HeadhuntError
from features.runtime.section import Section

Weights = Mapping[str, npt.NDArray[np.float32]]
"""A head's weights by `<layer>.<weight>`, e.g. `hidden_1.kernel`."""


class HeadConfig(Section):
    """Dense layers between the features and the classes.

    `units=()` is the classifier alone, `(256,)` one hidden layer before it, up to three. `dropout` follows every hidden layer;
    without hidden layers it is applied to the features. `l2` is the penalty on every kernel; like `label_smoothing`, it is part
    of the loss.
    """

    units: tuple[int, ...] = Field((), max_length=3)
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    dropout: float = Field(0.0, ge=0, lt=1)
    l2: float = Field(0.0, ge=0)
    batch_norm: bool = False
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    standardize: bool = True

    @property
    def layers(self) -> int:
        """Number of hidden layers before the classifier."""
        return len(self.units)


def build_head(
    head: HeadConfig,
    feature_shape: tuple[int, ...],
    classes: int,
    moments: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None,
    dropout_layer: Callable[[float, str], Any] | None = None,
    seed: int | None = None,
) -> Any:
    """A keras.Model of stock layers from features (batch, *feature_shape) float32 to logits (batch, classes) float32.

    `moments` (mean and variance) are required if `head.standardize` is set. `dropout_layer(rate, name)` replaces Keras's Dropout.
    Initial weights are drawn from `seed` (Glorot and Bengio, 2010), or from Keras's global seed if it is None.
    """
    import keras
    from keras import layers

    def dense(units: int, name: str, number: int) -> Any:
        drawn = None if seed is None else (seed + number) % 2**31
        return layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(drawn), name=name)

    make_dropout = dropout_layer or (lambda rate, name: layers.Dropout(rate, name=name))
    inputs = keras.Input(feature_shape, dtype="float32", name="features")
    x: Any = inputs
    if head.standardize:
        if moments is None:
            raise ValueError("a standardising head needs the features' moments")
        mean, variance = moments
        x = layers.Normalization(mean=mean, variance=variance, name="standardize")(x)
    if len(feature_shape) == 3:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    for number, units in enumerate(head.units, start=1):
        x = dense(units, f"hidden_{number}", number)(x)
        if head.batch_norm:
            x = layers.BatchNormalization(name=f"hidden_{number}_bn")(x)
        x = layers.Activation(head.activation, name=f"hidden_{number}_{head.activation}")(x)
        if head.dropout:
            x = make_dropout(head.dropout, f"dropout_{number}")(x)
    if head.dropout and not head.units:
        x = make_dropout(head.dropout, "dropout")(x)
    return keras.Model(inputs, dense(classes, "classifier", 0)(x), name="head")


def set_head_weights(model: Any, weights: Weights) -> None:
    """Loads weights into a head; HeadhuntError if they belong to another head."""
    wanted = {f"{layer.name}.{weight.name}": weight for layer in model.layers for weight in layer.weights}
    differing = sorted(
        name
        for name in {*wanted, *weights}
        if name not in wanted or name not in weights or tuple(wanted[name].shape) != weights[name].shape
    )
    if differing:
        raise HeadhuntError(f"the stored weights belong to another head: {', '.join(differing)} differ.")
    for name, weight in wanted.items():
        weight.assign(weights[name])
