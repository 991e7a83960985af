"""The table of Keras's image layers matches the installed Keras; errors name the key."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import keras
import pytest
from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
    BaseImagePreprocessingLayer,
)

from features.augmentation.keras_layers import LAYERS, REFUSED, check_layer, final_size
from features.runtime.errors import UsageError

NOT_OURS = {"self", "seed", "data_format", "name", "kwargs"}

EXAMPLES: list[Any] = [
    *(
        -2,
        -1,
        -0.5,
        0,
        0.4,
        1,
        2,
        8,
        9,
        300,
        True,
        "bilinear",
        "nearest",
        "constant",
        "mirror",
        "horizontal",
        "up",
        None,
    ),
    *([0, 255], [0, 1], [0.1, 0.4], [-0.1, 0.4], [3, 3], [2, 8], [0.1], [0.1, 3], {}),
]
"""Values to try for every argument of every layer."""


def test_the_table_is_that_of_the_installed_keras() -> None:
    theirs = {
        name
        for name, value in vars(keras.layers).items()
        if inspect.isclass(value) and issubclass(value, BaseImagePreprocessingLayer)
    }
    assert theirs == {*LAYERS, *REFUSED}
    for name, arguments in LAYERS.items():
        signature = inspect.signature(getattr(keras.layers, name).__init__).parameters
        assert set(signature) - NOT_OURS == set(arguments), name
        required = {
            argument
            for argument, parameter in signature.items()
            if parameter.default is inspect.Parameter.empty and argument not in NOT_OURS
        }
        assert required == {argument for argument, what in arguments.items() if what.required}, name


def least(name: str) -> dict[str, Any]:
    """The required arguments of a layer, with the first allowed value."""
    required = {argument: what for argument, what in LAYERS[name].items() if what.required}
    return {argument: next(v for v in EXAMPLES if what.accepts(v)) for argument, what in required.items()}


@pytest.mark.parametrize("name", LAYERS)
def test_keras_makes_every_layer_with_every_value_that_is_allowed(name: str) -> None:
    tried = 0
    for argument, what in LAYERS[name].items():
        for value in filter(what.accepts, EXAMPLES):
            arguments = {**least(name), argument: value}
            check_layer(name, arguments, "key")
            getattr(keras.layers, name)(**arguments, dtype="float32")
            tried += 1
    assert tried >= len(LAYERS[name])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "RandomContrst",
            {},
            r"key.layer: received 'RandomContrst'. Did you mean 'RandomContrast'\? Allowed: AutoContr",
        ),
        ("Dense", {"units": 3}, "key.layer: received 'Dense'. Allowed: AutoContrast, CenterCrop"),
        ("MixUp", {}, "key.layer: MixUp cannot be part of a policy: it mixes the photos of a batch, but a view"),
        ("AugMix", {}, "AugMix cannot be part of a policy: it draws from Python's global generator"),
        ("RandomBrightness", {}, "key: RandomBrightness requires factor: a number from -1 to 1, or"),
        (
            "RandomBrightness",
            {"factr": 0.1},
            r"key.factr: not an argument of RandomBrightness. Did you mean 'factor'\? Allow",
        ),
        ("RandomBrightness", {"factor": 2}, "key.factor: received 2; allowed for RandomBrightness: a number from -1"),
        ("RandomBrightness", {"factor": 0.1, "seed": 1}, "key.seed: not an argument of RandomBrightness"),
        ("RandAugment", {"value_range": [0, 1]}, r"key.value_range: received \[0, 1\]; .*since photos are in 0…255"),
        ("RandomZoom", {"height_factor": -1}, "key.height_factor: received -1; .* a number above -1 up to 1"),
        ("RandomRotation", {"factor": [-3, 0.5]}, r"key.factor: received \[-3, 0.5\]; allowed for RandomRotation"),
        ("RandomFlip", {"mode": "up"}, r"received 'up'; .* horizontal \| vertical \| horizontal_and_vertical"),
    ],
)
def test_anything_else_is_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_layer(name, arguments, "key")


def test_crops_and_resizes_decide_the_size() -> None:
    layers = [("Resizing", {"height": 40, "width": 50}), ("RandomFlip", {}), ("RandomCrop", {"height": 8, "width": 9})]
    assert final_size(layers, (32, 32)) == (8, 9)
    assert final_size(layers[1:2], (32, 32)) == (32, 32)


def test_checking_a_configuration_imports_no_backend() -> None:
    body = (
        "import sys\n"
        "from features.augmentation.augment import resolve_policy\n"
        "from features.config import AugmentationLayer as L\n"
        "resolve_policy([L(layer='RandomBrightness', factor=0.2), L(layer='RandomFlip')])\n"
        "resolve_policy('rand_augment')\n"
        "assert not {'keras', 'tensorflow', 'jax'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", body], check=True)
