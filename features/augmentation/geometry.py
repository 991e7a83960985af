"""Consecutive random flips, rotations, zooms and translations as one resampling of each photo.

Draws are pure functions of a key, so they do not depend on the order of the work or the number of workers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Matrices = npt.NDArray[np.float64]

UNCHANGED = np.array([1, 0, 0, 0, 1, 0, 0, 0], np.float32)
"""The identity transform, which leaves a photo exactly unchanged."""

FLIP, TURN, ZOOM, DOWN, RIGHT, ZOOM_WIDTH = range(6)
"""Indices of a key's random numbers, by use."""

MERGED = {
    "RandomFlip": {"mode"},
    "RandomRotation": {"factor"},
    "RandomZoom": {"height_factor", "width_factor"},
    "RandomTranslation": {"height_factor", "width_factor"},
}
"""Keras layers that can be merged, with the arguments that may have any value; others must have the value in `AS_MERGED`."""

AS_MERGED = {"fill_mode": "reflect", "interpolation": "bilinear"}


def is_merged(layer: str, arguments: Mapping[str, Any]) -> bool:
    """Whether this Keras layer can be merged into one resampling: it fills by reflection and interpolates bilinearly."""
    if layer not in MERGED:
        return False
    others = {name: value for name, value in arguments.items() if name not in MERGED[layer]}
    return all(name == "fill_value" or AS_MERGED.get(name) == value for name, value in others.items())


@dataclass(frozen=True)
class Step:
    """A layer: its Keras name and arguments, and how many layers of that name come before it, so that each draws differently."""

    layer: str
    arguments: Mapping[str, Any]
    occurrence: int = 0

    def matrices(self, keys: Sequence[str], image_size: tuple[int, int]) -> Matrices:
        """One (3, 3) matrix per key, from output to input pixels (x, y, 1): (len(keys), 3, 3) float64."""
        suffix = f"/{self.occurrence}" if self.occurrence else ""
        draws = np.array([uniforms(key + suffix) for key in keys]).reshape(-1, 8)
        signed = 2 * draws - 1
        if self.layer == "RandomFlip":
            return flips(draws[:, FLIP] < 0.5, str(self.arguments.get("mode", "horizontal_and_vertical")), image_size)
        if self.layer == "RandomRotation":
            middle, half = _range(self.arguments["factor"])
            return rotations(2 * math.pi * middle + signed[:, TURN] * (2 * math.pi * half), image_size)
        middle, half = _range(self.arguments["height_factor"])
        if self.layer == "RandomTranslation":
            across, wide = _range(self.arguments["width_factor"])
            return translations(middle + signed[:, DOWN] * half, across + signed[:, RIGHT] * wide, image_size)
        heights = 1 + (middle + signed[:, ZOOM] * half)
        if self.arguments.get("width_factor") is None:
            return zooms(heights, heights, image_size)
        across, wide = _range(self.arguments["width_factor"])
        return zooms(heights, 1 + (across + signed[:, ZOOM_WIDTH] * wide), image_size)


def flips(chosen: npt.NDArray[np.bool_], mode: str, image_size: tuple[int, int]) -> Matrices:
    """Mirrors the chosen photos: `mode` is horizontal, vertical or horizontal_and_vertical (both at once), as in Keras."""
    mirrored = np.where(chosen, -1.0, 1.0)
    across = mirrored if mode != "vertical" else 1
    down = mirrored if mode != "horizontal" else 1
    return _about_centre(_matrices(len(chosen), [[across, 0, 0], [0, down, 0], [0, 0, 1]]), image_size)


def rotations(radians: npt.NDArray[np.float64], image_size: tuple[int, int]) -> Matrices:
    """Rotations about the centre; positive is counter-clockwise."""
    cosine, sine = np.cos(radians), np.sin(radians)
    linear = _matrices(len(radians), [[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return _about_centre(linear, image_size)


def zooms(heights: npt.NDArray[np.float64], widths: npt.NDArray[np.float64], image_size: tuple[int, int]) -> Matrices:
    """Scaling about the centre; above 1 the content becomes smaller."""
    return _about_centre(_matrices(len(heights), [[widths, 0, 0], [0, heights, 0], [0, 0, 1]]), image_size)


def translations(
    down: npt.NDArray[np.float64], right: npt.NDArray[np.float64], image_size: tuple[int, int]
) -> Matrices:
    """Shifts by shares of the height and the width."""
    height, width = image_size
    return _matrices(len(down), [[1, 0, -right * width], [0, 1, -down * height], [0, 0, 1]])


def merge(matrices: Sequence[Matrices]) -> npt.NDArray[np.float32]:
    """Composes the transforms in order, one result per photo: (n, 8) float32 for `apply_transforms`."""
    # Matrices map output to input coordinates, so the transform applied last to the photo acts first on coordinates.
    whole = matrices[0]
    for matrix in matrices[1:]:
        whole = whole @ matrix
    return whole.reshape(-1, 9)[:, :8].astype(np.float32)


def apply_transforms(images: Any, transforms: npt.NDArray[np.float32]) -> Any:
    """Resamples photos (n, h, w, 3) float32 in 0…255 by transforms (n, 8): bilinear, reflected at the edges; same shape."""
    import keras

    return keras.ops.image.affine_transform(
        images, transforms, interpolation="bilinear", fill_mode="reflect", data_format="channels_last"
    )


def uniforms(key: str) -> npt.NDArray[np.float64]:
    """Eight numbers in [0, 1) from a key."""
    words = np.frombuffer(hashlib.sha512(key.encode()).digest(), np.uint64)
    return words.astype(np.float64) / 2.0**64


def _range(factor: Any) -> tuple[float, float]:
    """Middle and half-width of a Keras factor, where a number f means [-f, f]."""
    if isinstance(factor, int | float):
        return 0.0, abs(float(factor))
    low, high = sorted(factor)
    return (low + high) / 2, (high - low) / 2


def _matrices(count: int, rows: Sequence[Sequence[Any]]) -> Matrices:
    return np.stack([np.stack([np.broadcast_to(value, count) for value in row], -1) for row in rows], -2).astype(
        np.float64
    )


def _about_centre(linear: Matrices, image_size: tuple[int, int]) -> Matrices:
    height, width = image_size
    to_centre = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
    product: Matrices = np.linalg.inv(to_centre) @ linear @ to_centre
    return product
