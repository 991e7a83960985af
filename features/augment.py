"""Augmentation policies: random flips, rotations, zooms and translations, as one resampling of each image.

Every draw is a pure function of (seed, split, copy, image): no generator is carried along, so the order of the work and the
number of workers change nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features.config import AugmentationLayer, FeaturesConfig, Section
from features.errors import UsageError


class AugmentationPolicy(Section):
    """What Keras's RandomFlip, RandomRotation, RandomZoom and RandomTranslation would do in a row, with reflection at the edges.

    `rotation` is the largest turn as a share of a full one; `zoom` the largest change of scale (both axes alike) and
    `translation` the largest shift as a share of the image's sides, each in either direction.
    """

    horizontal_flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    translation: float = 0.0

    def transforms(
        self, identities: Sequence[str], seed: int, split: str, copy: int, image_size: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        """Projective transforms (len(identities), 8) float32 from output to input pixels, as `apply_transforms` takes them.

        `identities` are the images' sha256; each row depends on its own identity alone.
        """
        draws = np.array([_uniform(f"{seed}/{split}/{copy}/{identity}") for identity in identities]).reshape(-1, 5)
        flips = self.horizontal_flip & (draws[:, 0] < 0.5)
        turns, zooms, down, right = (2 * draws[:, 1:] - 1).T * [
            [2 * math.pi * self.rotation], [self.zoom], [self.translation], [self.translation]
        ]  # fmt: skip
        return self.compose(flips, turns, 1 + zooms, np.stack([right, down], 1), image_size)

    @staticmethod
    def compose(
        flips: npt.NDArray[np.bool_],
        radians: npt.NDArray[np.float64],
        zooms: npt.NDArray[np.float64],
        shifts: npt.NDArray[np.float64],
        image_size: tuple[int, int],
    ) -> npt.NDArray[np.float32]:
        """Flip, turn, zoom (above 1: smaller), then shift by `shifts` (n, 2) of (width, height): one transform an image."""
        height, width = image_size
        ones, zeros = np.ones(len(flips)), np.zeros(len(flips))

        def matrices(rows: Sequence[Sequence[Any]]) -> npt.NDArray[np.float64]:
            return np.stack([np.stack([np.broadcast_to(value, len(ones)) for value in row], -1) for row in rows], -2)

        def about_centre(linear: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
            to_centre = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]])
            product: npt.NDArray[np.float64] = np.linalg.inv(to_centre) @ linear @ to_centre
            return product

        mirrored = np.where(flips, -1.0, 1.0)
        cosine, sine = np.cos(radians), np.sin(radians)
        flip = about_centre(matrices([[mirrored, 0, 0], [0, 1, 0], [0, 0, 1]]))
        turn = about_centre(matrices([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]))
        zoom = about_centre(matrices([[zooms, 0, 0], [0, zooms, 0], [0, 0, 1]]))
        shift = matrices([[1, zeros, -shifts[:, 0] * width], [0, 1, -shifts[:, 1] * height], [0, 0, 1]])
        # The image is sampled backwards: the transform applied last to it meets the output's coordinates first.
        whole = flip @ turn @ zoom @ shift
        return whole.reshape(-1, 9)[:, :8].astype(np.float32)


POLICIES = {
    "none": AugmentationPolicy(),
    "mild": AugmentationPolicy(horizontal_flip=True, rotation=0.02, zoom=0.1),
    "flip_rotate_zoom": AugmentationPolicy(horizontal_flip=True, rotation=0.1, zoom=0.2),
    "flip_rotate_zoom_translate": AugmentationPolicy(horizontal_flip=True, rotation=0.2, zoom=0.2, translation=0.2),
}
"""The policies by name; the last two are the seed's."""

LAYERS = {
    "RandomFlip": {"mode"},
    "RandomRotation": {"factor"},
    "RandomZoom": {"height_factor"},
    "RandomTranslation": {"height_factor", "width_factor"},
}
"""Keras layers that a policy may be listed as, in this order, with the arguments that are understood."""


def resolve_policy(value: str | Sequence[AugmentationLayer], key: str = "features.augmentation") -> AugmentationPolicy:
    """The policy of this name, or of this list of Keras layers; UsageError listing what is allowed."""
    if isinstance(value, str):
        if value not in POLICIES:
            raise UsageError(f"{key}: received {value!r}; allowed: {', '.join(POLICIES)}, or a list of Keras layers.")
        return POLICIES[value]
    names = [layer.layer for layer in value]
    if any(name not in LAYERS for name in names) or names != sorted(set(names), key=list(LAYERS).index):
        raise UsageError(
            f"{key}: received the layers {', '.join(names)}; allowed: {', '.join(LAYERS)}, each once, in this order."
        )
    arguments: dict[str, Any] = {}
    for layer in value:
        given = dict(layer.model_extra or {})
        unknown = sorted(set(given) - LAYERS[layer.layer])
        if unknown:
            allowed = ", ".join(sorted(LAYERS[layer.layer]))
            raise UsageError(f"{key}: {layer.layer} takes {allowed} here, but got {', '.join(unknown)}.")
        arguments.update(_arguments(layer.layer, given, key))
    return AugmentationPolicy(**arguments)


def _arguments(name: str, given: dict[str, Any], key: str) -> dict[str, Any]:
    if name == "RandomFlip":
        if given.get("mode") != "horizontal":
            raise UsageError(f"{key}: RandomFlip takes mode: horizontal here, but got {given.get('mode')!r}.")
        return {"horizontal_flip": True}
    values = list(given.values())
    if (
        set(given) != LAYERS[name]
        or not all(isinstance(value, float | int) and 0 <= value < 1 for value in values)
        or len(set(values)) != 1
    ):
        raise UsageError(
            f"{key}: {name} takes {' and '.join(sorted(LAYERS[name]))}, one share of 0 up to 1, the same for both axes, but "
            f"got {given}."
        )
    return {name.removeprefix("Random").lower(): float(values[0])}


def policy_name(config: FeaturesConfig) -> str:
    """What the cached policy is called: its name, or `custom` for a list of layers."""
    return config.augmentation if isinstance(config.augmentation, str) else "custom"


def apply_transforms(images: Any, transforms: npt.NDArray[np.float32]) -> Any:
    """Resamples images (n, h, w, 3) float32 in 0…255 by transforms (n, 8): bilinear, reflected at the edges; the same shape."""
    import keras

    return keras.ops.image.affine_transform(
        images, transforms, interpolation="bilinear", fill_mode="reflect", data_format="channels_last"
    )


def _uniform(key: str) -> npt.NDArray[np.float64]:
    """Five numbers in [0, 1) from a key."""
    words = np.frombuffer(hashlib.sha512(key.encode()).digest()[:40], np.uint64)
    return words.astype(np.float64) / 2.0**64
