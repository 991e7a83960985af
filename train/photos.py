"""Photos for the full network: decoded once where they fit into memory, augmented afresh in every epoch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features.augment import Augmenter
from features.backbones import image_size
from features.config import FeaturesRun
from features.dataset import DatasetIndex
from features.images import load_images

MEMORY_BYTES = 4 << 30
"""Decoded photos of a split are kept in memory up to this size."""

FRESH = 1_000_000
"""Augmented copies from this number on are fine-tuning's: epoch e sees copy FRESH + e, which no cache holds."""


class Photos:
    """The photos of one split, by position: uint8 pixels (h, w, 3), labels and identities."""

    def __init__(self, run: FeaturesRun, index: DatasetIndex, split: str) -> None:
        table = index.of_split(split)
        self.split = split
        self.rows: list[int] = table.index.tolist()
        self.paths: list[str] = table["path"].tolist()
        self.labels = table["label"].to_numpy(np.int32)
        self.identities: list[str] = table["sha256"].tolist()
        self._index = index
        self._size = image_size(run.features)
        self._crop = bool(getattr(run.dataset, "crop_to_bbox", False))
        height, width = self._size
        small = len(self.rows) * height * width * 3 <= MEMORY_BYTES
        self._held = self._load(self.rows) if small else None

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The photos at these positions: (n, h, w, 3) uint8."""
        if self._held is not None:
            return self._held[positions]
        return self._load([self.rows[position] for position in positions])

    def _load(self, rows: Sequence[int]) -> npt.NDArray[np.uint8]:
        return load_images(self._index, rows, self._size, self._crop, os.cpu_count() or 1)


def augmented_epoch(
    photos: Photos,
    augment: Augmenter,
    clean_share: float,
    epoch: int,
    seed: int,
    batch_size: int,
    classes: int,
) -> Any:
    """One epoch of training batches as a keras PyDataset: photos (batch, h, w, 3) float32, labels (batch, classes) one-hot.

    Order and views are pure functions of (seed, epoch); the next batches are prepared in a thread while the model trains.
    About `clean_share` of the photos are left as they are, besides those that the policy leaves clean.
    """
    import keras

    random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))
    order = random.permutation(len(photos))
    clean = random.random(len(photos)) < clean_share
    one_hot = np.eye(classes, dtype=np.float32)

    class Epoch(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return -(-len(order) // batch_size)

        def __getitem__(self, number: int) -> tuple[Any, Any]:
            chosen = order[number * batch_size : (number + 1) * batch_size]
            pixels = photos.pixels(chosen)
            filled = np.zeros((batch_size, *pixels.shape[1:]), np.float32)
            filled[: len(chosen)] = pixels
            identities = [None if clean[position] else photos.identities[position] for position in chosen]
            padded = [*identities, *[None] * (batch_size - len(chosen))]
            views = augment(filled, padded, seed, photos.split, FRESH + epoch)
            return np.asarray(views)[: len(chosen)], one_hot[photos.labels[chosen]]

    return Epoch(workers=1, use_multiprocessing=False, max_queue_size=4)
