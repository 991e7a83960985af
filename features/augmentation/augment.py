"""Augmentation policies by name or as lists of Keras layers, and the views of photos that they produce.

Every view is a pure function of (seed, split, copy, photo). There is no generator state, so views do not depend on the order of
the work, the rest of the batch or the number of workers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from features.augmentation.geometry import UNCHANGED, Step, apply_transforms, is_merged, merge, uniforms
from features.augmentation.keras_layers import check_layer, final_size
from features.config import Augmentation, AugmentationConfig, AugmentationLayer
from features.runtime.errors import UsageError
from features.runtime.nearest import suggest
from features.runtime.section import Section
from features.runtime.workers.engine import compiled

CLEAN_DRAW = 7
"""Index of the key's number that decides whether a photo stays clean; the merged layers use the first six."""


class AugmentationPolicy(Section):
    """A sequence of Keras layers, and the probability that a photo is left unchanged.

    Consecutive RandomFlip, RandomRotation, RandomZoom and RandomTranslation layers that reflect at the edges and interpolate
    bilinearly are merged into one resampling; all other layers are Keras's own.
    """

    layers: tuple[AugmentationLayer, ...] = ()
    clean_probability: float = Field(0.0, ge=0, le=1)

    @property
    def merged(self) -> bool:
        """Whether the whole policy is one resampling. Its views are then the same on every Keras backend."""
        return all(is_merged(layer.layer, layer.arguments) for layer in self.layers)


def _policy(*layers: dict[str, Any]) -> AugmentationPolicy:
    return AugmentationPolicy(layers=tuple(AugmentationLayer.model_validate(layer) for layer in layers))


FLIP = {"layer": "RandomFlip", "mode": "horizontal"}

POLICIES = {
    "none": _policy(),
    "mild": _policy(FLIP, {"layer": "RandomRotation", "factor": 0.02}, {"layer": "RandomZoom", "height_factor": 0.1}),
    "flip_rotate_zoom": _policy(
        FLIP, {"layer": "RandomRotation", "factor": 0.1}, {"layer": "RandomZoom", "height_factor": 0.2}
    ),
    "flip_rotate_zoom_translate": _policy(
        FLIP,
        {"layer": "RandomRotation", "factor": 0.2},
        {"layer": "RandomZoom", "height_factor": 0.2},
        {"layer": "RandomTranslation", "height_factor": 0.2, "width_factor": 0.2},
    ),
    "rand_augment": _policy({"layer": "RandAugment", "value_range": [0, 255], "num_ops": 2, "factor": 0.5}),
}
"""The policies by name. flip_rotate_zoom and flip_rotate_zoom_translate are those of the original notebooks."""


def resolve_policy(
    value: Augmentation, key: str = "features.augmentation", image_size: tuple[int, int] | None = None
) -> AugmentationPolicy:
    """The policy for a name, a list of Keras layers or a mapping.

    Raises UsageError, naming `key`, for an unknown name, layer or argument, and for layers whose output size is not `image_size`.
    Imports neither Keras nor its backend.
    """
    if isinstance(value, str):
        if value not in POLICIES:
            raise UsageError(
                f"{key}: received {value!r}; allowed: {', '.join(POLICIES)}, or a list of Keras layers."
                f"{suggest(value, list(POLICIES))}"
            )
        return POLICIES[value]
    if isinstance(value, AugmentationConfig):
        if value.policy is not None:
            return resolve_policy(value.policy, f"{key}.policy").model_copy(
                update={"clean_probability": value.clean_probability}
            )
        if value.name in POLICIES:
            raise UsageError(
                f"{key}.name: {value.name!r} is the name of a built-in policy. Choose another name for these layers."
            )
        listed = resolve_policy(value.layers or [], f"{key}.layers", image_size)
        return listed.model_copy(update={"clean_probability": value.clean_probability})
    for position, layer in enumerate(value):
        check_layer(layer.layer, layer.arguments, f"{key}.{position}")
    if image_size is not None:
        size = final_size([(layer.layer, layer.arguments) for layer in value], image_size)
        if size != image_size:
            raise UsageError(
                f"{key}: these layers output photos of {size[0]}×{size[1]}, but features.image_size is "
                f"{image_size[0]}×{image_size[1]}. The last layer that crops or resizes must output that size."
            )
    return AugmentationPolicy(layers=tuple(value))


class Augmenter:
    """Applies a policy: batches of photos in, their views out. Thread-safe.

    Compiles once per batch shape, so use batches of one size and pad the last one.
    """

    def __init__(self, policy: AugmentationPolicy) -> None:
        self.policy = policy
        self._clean_probability = policy.clean_probability
        self._parts = [_Resampling(part) if merged else _Layers(part) for merged, part in _parts(policy)]

    def __call__(self, images: Any, identities: Sequence[str | None], seed: int, split: str, copy: int) -> Any:
        """Views of photos (n, h, w, 3) float32 in 0…255: same shape, an array of Keras's backend or numpy.

        `identities` (n,) are the photos' sha256; a photo with None is left unchanged, like those chosen by `clean_probability`.
        """
        keys = [None if identity is None else f"{seed}/{split}/{copy}/{identity}" for identity in identities]
        if self._clean_probability:
            keys = [None if key is None or uniforms(key)[CLEAN_DRAW] < self._clean_probability else key for key in keys]
        views = images
        for part in self._parts:
            views = part(views, keys)
        clean = np.array([key is None for key in keys], bool)
        if not self.policy.merged and clean.any():  # the layers skipped these
            views = np.array(views)
            views[clean] = np.asarray(images)[clean]
        return views


def _parts(policy: AugmentationPolicy) -> Iterator[tuple[bool, list[Step]]]:
    """The policy's layers grouped into consecutive runs, as (merged, steps)."""
    seen: Counter[str] = Counter()
    steps = []
    for layer in policy.layers:
        steps.append(Step(layer.layer, layer.arguments, seen[layer.layer]))
        seen[layer.layer] += 1
    for merged, part in groupby(steps, lambda step: is_merged(step.layer, step.arguments)):
        yield merged, list(part)


class _Resampling:
    """Consecutive geometric layers as one compiled resampling of a batch."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps
        self._apply = compiled(apply_transforms)

    def __call__(self, images: Any, keys: Sequence[str | None]) -> Any:
        return self._apply(images, self.transforms(keys, tuple(images.shape[1:3])))

    def transforms(self, keys: Sequence[str | None], image_size: tuple[int, int]) -> npt.NDArray[np.float32]:
        drawn = [key for key in keys if key is not None]
        transforms = np.tile(UNCHANGED, (len(keys), 1))
        if drawn:
            rows = [key is not None for key in keys]
            transforms[rows] = merge([step.matrices(drawn, image_size) for step in self._steps])
        return transforms


class _Layers:
    """Consecutive Keras layers, applied photo by photo on one thread per core."""

    def __init__(self, steps: Sequence[Step]) -> None:
        from features.augmentation.layer_views import LayerView, in_turn

        self._view = in_turn([LayerView(step.layer, step.arguments, step.occurrence) for step in steps])

    def __call__(self, images: Any, keys: Sequence[str | None]) -> npt.NDArray[np.float32]:
        photos = np.asarray(images, np.float32)
        drawn = [(position, key) for position, key in enumerate(keys) if key is not None]
        if not drawn:
            return photos

        def view(place: tuple[int, str]) -> npt.NDArray[np.float32]:
            position, key = place
            return np.asarray(self._view(photos[position : position + 1], key))

        first = view(drawn[0])  # before the threads start, since the first call may compile
        views = np.zeros((len(photos), *first.shape[1:]), np.float32)
        views[drawn[0][0]] = first[0]
        with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
            for (position, _), seen in zip(drawn[1:], threads.map(view, drawn[1:]), strict=True):
                views[position] = seen[0]
        return views
