"""A table of Keras's image preprocessing layers and their arguments, available without importing Keras.

It lets the configuration reject a wrong name or argument in milliseconds, whatever backend the process will use. A test compares
the table with the installed Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from features.runtime.errors import UsageError
from features.runtime.nearest import suggest


@dataclass(frozen=True)
class Argument:
    """The allowed values of an argument, as text and as a predicate."""

    allowed: str
    accepts: Callable[[Any], bool]
    required: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_pair(value: Any, of: Callable[[Any], bool]) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(of, value))


def _number(low: float, high: float) -> Argument:
    return Argument(f"a number from {low:g} to {high:g}", lambda value: _is_number(value) and low <= value <= high)


def _factor(low: float, high: float, required: bool = False) -> Argument:
    one = _number(low, high)
    return Argument(
        f"{one.allowed}, or [low, high] with such numbers",
        lambda value: one.accepts(value) or _is_pair(value, one.accepts),
        required,
    )


def _whole(low: int, high: int | None = None, pair: bool = False) -> Argument:
    def accepts(value: Any) -> bool:
        return type(value) is int and low <= value and (high is None or value <= high)

    words = f"an integer from {low}" + ("" if high is None else f" to {high}")
    if not pair:
        return Argument(words, accepts)
    return Argument(f"{words}, or two of them", lambda value: accepts(value) or _is_pair(value, accepts))


def _is_odd(value: Any) -> bool:
    return type(value) is int and value > 0 and value % 2 == 1


def _choice(*values: str) -> Argument:
    return Argument(" | ".join(values), lambda value: value in values)


def _optional(argument: Argument) -> Argument:
    return Argument(f"{argument.allowed}, or null", lambda value: value is None or argument.accepts(value))


def _required(argument: Argument) -> Argument:
    return replace(argument, required=True)


ANY_NUMBER = Argument("a number", _is_number)
FLAG = Argument("true | false", lambda value: isinstance(value, bool))
VALUE_RANGE = Argument("[0, 255], since photos are in 0…255", lambda value: value in ([0, 255], (0, 255)))
BILINEAR = _choice("nearest", "bilinear")
FILL_MODE = _choice("reflect", "wrap", "constant", "nearest")
FILL = {"fill_mode": FILL_MODE, "fill_value": ANY_NUMBER, "interpolation": BILINEAR}
SIZE = {"height": _required(_whole(1)), "width": _required(_whole(1))}
RESIZE = _choice("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5", "area")
ZOOM = Argument(
    "a number above -1 up to 1, or [low, high] with such numbers",
    lambda value: all(_is_number(one) and -1 < one <= 1 for one in (value if _is_pair(value, _is_number) else [value])),
)

LAYERS: dict[str, dict[str, Argument]] = {
    "AutoContrast": {"value_range": VALUE_RANGE},
    "CenterCrop": SIZE,
    "ContrastLimitedAdaptiveHistogramEqualization": {
        "value_range": VALUE_RANGE,
        "clip_limit": _number(0, 1e6),
        "tile_grid_size": Argument("[rows, columns]", lambda value: _is_pair(value, _whole(1).accepts)),
    },
    "Equalization": {"value_range": VALUE_RANGE, "bins": _whole(2, 256)},
    "RandAugment": {
        "value_range": VALUE_RANGE,
        "num_ops": _whole(1, 16),
        "factor": _factor(0, 1),
        "interpolation": BILINEAR,
    },
    "RandomBrightness": {"factor": _factor(-1, 1, True), "value_range": VALUE_RANGE},
    "RandomColorDegeneration": {"factor": _factor(-1, 1, True), "value_range": VALUE_RANGE},
    "RandomColorJitter": {
        "value_range": VALUE_RANGE,
        "brightness_factor": _optional(_factor(-1, 1)),
        "contrast_factor": _optional(_factor(0, 1)),
        "saturation_factor": _optional(_factor(0, 1)),
        "hue_factor": _optional(_factor(0, 1)),
    },
    "RandomContrast": {"factor": _factor(0, 1, True), "value_range": VALUE_RANGE},
    "RandomCrop": SIZE,
    "RandomElasticTransform": {
        **FILL,
        "factor": _factor(0, 1),
        "scale": _factor(0, 1),
        "fill_mode": _choice("reflect", "wrap", "constant", "nearest", "mirror"),
        "value_range": VALUE_RANGE,
    },
    "RandomErasing": {
        "factor": _factor(0, 1),
        "scale": _factor(0, 1),
        "fill_value": _optional(ANY_NUMBER),
        "value_range": VALUE_RANGE,
    },
    "RandomFlip": {"mode": _choice("horizontal", "vertical", "horizontal_and_vertical")},
    "RandomGaussianBlur": {
        "factor": _factor(0, 1),
        "kernel_size": Argument(
            "an odd number, or two of them", lambda value: _is_odd(value) or _is_pair(value, _is_odd)
        ),
        "sigma": _factor(0, 1),
        "value_range": VALUE_RANGE,
    },
    "RandomGrayscale": {"factor": _number(0, 1)},
    "RandomHue": {"factor": _factor(0, 1, True), "value_range": VALUE_RANGE},
    "RandomInvert": {"factor": _factor(0, 1), "value_range": VALUE_RANGE},
    "RandomPerspective": {
        "factor": _factor(0, 1),
        "scale": _number(0, 1),
        "interpolation": BILINEAR,
        "fill_value": ANY_NUMBER,
    },
    "RandomPosterization": {"factor": _required(_whole(1, 8, pair=True)), "value_range": VALUE_RANGE},
    "RandomRotation": {"factor": _factor(-1, 1, True), **FILL},
    "RandomSaturation": {"factor": _factor(0, 1, True), "value_range": VALUE_RANGE},
    "RandomSharpness": {"factor": _factor(0, 1, True), "value_range": VALUE_RANGE},
    "RandomShear": {"x_factor": _factor(0, 1), "y_factor": _factor(0, 1), **FILL},
    "RandomTranslation": {"height_factor": _factor(-1, 1, True), "width_factor": _factor(-1, 1, True), **FILL},
    "RandomZoom": {"height_factor": _required(ZOOM), "width_factor": _optional(ZOOM), **FILL},
    "Resizing": {
        **SIZE,
        "interpolation": RESIZE,
        "crop_to_aspect_ratio": FLAG,
        "pad_to_aspect_ratio": FLAG,
        "fill_mode": _choice("constant"),
        "fill_value": ANY_NUMBER,
        "antialias": FLAG,
    },
    "Solarization": {"addition_factor": _factor(0, 1), "threshold_factor": _factor(0, 1), "value_range": VALUE_RANGE},
}
"""The layers that a policy may use, with their arguments, except the seed (which is features.seed) and the data format."""

REFUSED = {
    "AugMix": "it draws from Python's global generator, so its views cannot be seeded",
    "CutMix": "it mixes the photos of a batch, but a view must depend only on its own photo",
    "MixUp": "it mixes the photos of a batch, but a view must depend only on its own photo",
    "MaxNumBoundingBoxes": "it changes boxes, not photos",
}
"""Keras's other image layers, and why a policy cannot use them."""


def check_layer(name: str, arguments: Mapping[str, Any], key: str) -> None:
    """Raises UsageError for an unknown image layer or invalid arguments. `key` is the layer's key path."""
    if name in REFUSED:
        raise UsageError(
            f"{key}.layer: {name} cannot be part of a policy: {REFUSED[name]}. Allowed: {', '.join(LAYERS)}."
        )
    if name not in LAYERS:
        raise UsageError(f"{key}.layer: received {name!r}.{suggest(name, list(LAYERS))} Allowed: {', '.join(LAYERS)}.")
    known = LAYERS[name]
    for argument, value in arguments.items():
        if argument not in known:
            raise UsageError(
                f"{key}.{argument}: not an argument of {name}.{suggest(argument, list(known))} "
                f"Allowed: {', '.join(known)}."
            )
        if not known[argument].accepts(value):
            raise UsageError(f"{key}.{argument}: received {value!r}; allowed for {name}: {known[argument].allowed}.")
    missing = [argument for argument in known if known[argument].required and argument not in arguments]
    if missing:
        raise UsageError(f"{key}: {name} requires {missing[0]}: {known[missing[0]].allowed}.")


def final_size(layers: Sequence[tuple[str, Mapping[str, Any]]], image_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a photo after these layers, given as (name, arguments)."""
    for name, arguments in layers:
        if LAYERS[name].keys() >= SIZE.keys():
            image_size = (arguments["height"], arguments["width"])
    return image_size
