"""Reads a `.keras` file without Keras: checks it for damage, and a backbone before anything is computed."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from features.runtime.errors import UsageError

AUGMENTING = ("MixUp", "CutMix", "AugMix", "RandAugment", "Solarization", "Pipeline")
"""Random augmentation layers whose name does not start with Random."""


class FileLayer(NamedTuple):
    """One layer of a file: its path (`conv`, `inner/conv`), its class and its configuration."""

    path: str
    kind: str
    config: dict[str, Any]


class KerasFile(NamedTuple):
    """A network as described by its file: its class and all its layers, those of a nested network after that network."""

    kind: str
    layers: tuple[FileLayer, ...]

    @property
    def augments(self) -> bool:
        """Whether it has a random augmentation layer."""
        return any(layer.kind.startswith("Random") or layer.kind in AUGMENTING for layer in self.layers)

    @property
    def normalizes(self) -> bool:
        """Whether it has a Normalization layer with learnt mean and variance (as weights)."""
        return any(layer.kind == "Normalization" and layer.config.get("mean") is None for layer in self.layers)

    @property
    def depthwise(self) -> bool:
        """Whether it has depthwise convolutions."""
        return any(
            layer.kind in ("DepthwiseConv2D", "SeparableConv2D")
            or (layer.kind == "Conv2D" and 1 < layer.config.get("groups", 1) == layer.config.get("filters"))
            for layer in self.layers
        )


def keras_file_damage(path: Path) -> str | None:
    """How a `.keras` file is damaged, by the checksums of its zip archive; None if it is not."""
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except IsADirectoryError:
        return "it is a folder"
    except (zipfile.BadZipFile, EOFError):
        return "it is truncated or not a zip archive"
    except (OSError, RuntimeError, ValueError, zlib.error) as error:  # what zipfile raises for wrong headers
        return str(error)
    return part and f"the checksum of its {part} is wrong"


def read_keras_file(path: Path) -> KerasFile:
    """Reads a `.keras` file. Raises UsageError when it is not one, is damaged, or holds a network without a graph."""
    try:
        with zipfile.ZipFile(path) as archive:
            raw = json.loads(archive.read("config.json"))
            archive.getinfo("model.weights.h5")
        kind, config = raw["class_name"], raw["config"]
    except (zipfile.BadZipFile, OSError, KeyError, ValueError, TypeError) as error:
        reason = "it is truncated or not a zip archive" if isinstance(error, zipfile.BadZipFile) else str(error)
        raise UsageError(
            f"features.backbone: {path} is not a complete .keras file ({reason}). Save the network with "
            f"`model.save({path.name!r})` in "
            "Keras 3."
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        raise UsageError(
            f"features.backbone: {path} contains a {kind}, but must contain a functional or sequential model. Save it as one."
        )
    return KerasFile(kind, tuple(_layers(config, "")))


def check_keras_file(file: KerasFile, path: Path, image_size: tuple[int, int]) -> None:
    """Raises UsageError for a network that cannot be used: channels first, quantised, or of another image size."""
    for layer in file.layers:
        if layer.config.get("data_format") == "channels_first":
            raise UsageError(
                f"features.backbone: {path} uses channels_first (layer {layer.path!r}), but photos are (height, width, "
                "channels). Rebuild it with `keras.config.set_image_data_format('channels_last')` and save it again."
            )
        if "Quantized" in _dtype_kind(layer.config):
            raise UsageError(
                f"features.backbone: {path} is quantised (layer {layer.path!r}). Save the network before quantising it."
            )
    inputs = [layer for layer in file.layers if layer.kind == "InputLayer" and "/" not in layer.path]
    if not inputs:
        return  # a Sequential that starts with a nested network, which has the input
    if len(inputs) > 1:
        raise UsageError(
            f"features.backbone: {path} must be a functional or sequential model with one input and one output, but has "
            f"{len(inputs)} inputs."
        )
    expected, given = tuple((inputs[0].config.get("batch_shape") or ())[1:]), (*image_size, 3)
    if len(expected) != 3 or any(want not in (None, size) for want, size in zip(expected, given, strict=True)):
        raise UsageError(
            f"features.image_size: {path} expects photos of shape {expected}, but the configuration gives {given}."
        )


def _layers(config: dict[str, Any], prefix: str) -> Iterator[FileLayer]:
    for each in config["layers"]:
        inner = each.get("config") or {}
        path = f"{prefix}{inner.get('name', each.get('name', ''))}"
        yield FileLayer(path, str(each.get("class_name", "")), inner)
        if isinstance(inner.get("layers"), list):
            yield from _layers(inner, f"{path}/")


def _dtype_kind(config: dict[str, Any]) -> str:
    dtype = config.get("dtype")
    return str(dtype.get("class_name", "")) if isinstance(dtype, dict) else ""
