"""A hypermodel's model: built for the cached features, its form of labels, and its conversion to a head of the network."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt

from features.runtime.errors import HeadhuntError
from features.runtime.workers.keras_internals import parts_of
from search.heads import Weights
from search.hypermodels.function import CombinationError, Hypermodel
from search.hypermodels.parameters import drawn_hyperparameters
from search.trial import HypermodelChoice

SMALLEST = 1e-7
"""Smaller probabilities are raised to this before their logarithm is taken."""


def build_model(choice: HypermodelChoice, folder: Path, feature_shape: tuple[int, ...], classes: int, seed: int) -> Any:
    """The compiled model for these values, built for features (batch, *feature_shape), with weights drawn from `seed`.

    Raises CombinationError if the function returns no model, or one with other shapes.
    """
    # Like keras.utils.set_random_seed, which would import TensorFlow: Keras draws its default seeds from Python's generator.
    random.seed(seed)
    np.random.seed(seed % 2**32)
    hp = drawn_hyperparameters(lambda parameter: choice.values[parameter.name], {})
    hp.values = dict(choice.values)
    model = Hypermodel(choice.function, folder).build(hp)
    try:
        outputs = np.asarray(model(np.zeros((2, *feature_shape), np.float32), training=False)).shape
    except Exception as error:
        given = f" It expects {tuple(model.input_shape[1:])}." if model.built and model.inputs else ""
        raise CombinationError(
            f"the model of {choice.function} with {choice.values} does not accept the cached features, {feature_shape}:{given} "
            f"{type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    if outputs != (2, classes):
        raise CombinationError(
            f"the model of {choice.function} with {choice.values} outputs {outputs[1:]}, but there are {classes} classes"
        )
    return model


LABEL_FORMS: dict[str, Callable[[npt.NDArray[np.int32], int], npt.NDArray[Any]]] = {
    "one-hot rows": lambda labels, classes: np.eye(classes, dtype=np.float32)[labels],
    "class numbers": lambda labels, classes: labels,
    "a column of class numbers": lambda labels, classes: labels[:, None],
}
"""Forms of labels for a loss, from labels (batch,) int32 and the number of classes: (batch, classes) float32, (batch,) int32 or
(batch, 1) int32."""


def choose_label_form(model: Any, feature_shape: tuple[int, ...], classes: int) -> str:
    """The first of LABEL_FORMS that the model's loss accepts and whose order changes it; if none does, the first it accepts.

    Found by trying each. Raises CombinationError for a loss that accepts none.
    """
    features = np.random.default_rng(0).standard_normal((2, *feature_shape), np.float32)
    given = model(features, training=False)
    reasons, order_matters = [], dict[str, bool]()
    labels = np.arange(2, dtype=np.int32) % classes
    for form, make in LABEL_FORMS.items():
        y = make(labels, classes)
        try:
            one, other = (np.asarray(model.compute_loss(features, each, given)) for each in (y, y[::-1]))
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        if one.ndim == 0:
            order_matters[form] = not np.isclose(one, other, rtol=1e-6, atol=0)
    if not order_matters:
        raise CombinationError(
            f"its loss accepts neither {' nor '.join(LABEL_FORMS)} ({'; '.join(dict.fromkeys(reasons))})"
        )
    return max(order_matters, key=lambda form: order_matters[form])


def as_head(model: Any, feature_shape: tuple[int, ...], sample: npt.NDArray[np.float32]) -> Any:
    """The model as a head of the same layers: features (batch, *feature_shape) float32 to logits (batch, classes).

    Outputs within 0 and 1 for all of `sample` (n, *feature_shape) are taken for probabilities; the logits are then their
    logarithms, so that a softmax restores them. Raises HeadhuntError for layers that are not Keras's own, with which an export
    could not be loaded, and for a `call` that is not made of Keras operations.
    """
    import keras

    if getattr(model, "inputs", None):  # only its layers, without its compile settings or its own class
        (inputs,), (outputs,) = model.inputs, model.outputs
    else:
        inputs = keras.Input(feature_shape, dtype="float32", name="features")
        try:
            outputs = model.call(inputs)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise HeadhuntError(
                f"its `call` cannot be traced ({type(error).__name__}: {reason}). Build it from Keras layers and operations"
            ) from error
    foreign = sorted(set(_foreign(keras.Model(inputs, outputs))))
    if foreign:
        raise HeadhuntError(
            f"it has parts that are not Keras's own ({', '.join(foreign)}): plain Keras could not load an export of it. "
            "Build it from Keras layers and operations"
        )
    given = np.asarray(model(sample, training=False))
    if ((given >= 0) & (given <= 1)).all():
        outputs = keras.ops.log(keras.ops.maximum(outputs, SMALLEST))
    return keras.Model(inputs, outputs, name="head")


def check_promotable(choice: HypermodelChoice, model: Any, feature_shape: tuple[int, ...]) -> None:
    """Raises CombinationError if the model for these values cannot become an exportable head (see `as_head`)."""
    try:
        as_head(model, feature_shape, np.zeros((1, *feature_shape), np.float32))
    except HeadhuntError as error:
        raise CombinationError(
            f"the model of {choice.function} with {choice.values} could not be promoted: {error}"
        ) from error


def model_weights(model: Any) -> list[Any]:
    """The variables stored with a trial, in their order, without the states of random streams."""
    return [each for each in (*model.trainable_variables, *model.non_trainable_variables) if not _is_random(each)]


def set_model_weights(model: Any, weights: Weights) -> None:
    """Loads a trial's weights, in the order of `model_weights`, into a model; HeadhuntError if they belong to another model."""
    variables = model_weights(model)
    shapes, stored = [tuple(each.shape) for each in variables], [each.shape for each in weights.values()]
    if shapes != stored:
        raise HeadhuntError(f"the stored weights belong to another model: it has {shapes}, they are {stored}.")
    for variable, value in zip(variables, weights.values(), strict=True):
        variable.assign(value)


def _is_random(variable: Any) -> bool:
    return "seed_generator" in variable.path


def _foreign(model: Any) -> Iterator[str]:
    """The names of layers, and of functions and objects in them, that are not Keras's own. (Serialising would import
    TensorFlow.)"""
    for layer in parts_of(model, with_itself=False):
        inside = [
            each for each in vars(layer).values() if isinstance(each, FunctionType) or hasattr(each, "get_config")
        ]
        for each in [layer, *inside]:
            named = each if isinstance(each, FunctionType) else type(each)
            if named.__module__.partition(".")[0] != "keras":
                yield named.__name__
