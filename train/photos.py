"""Photos for the full network: decoded once if they fit into memory, with fresh views every epoch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features.augmentation.augment import Augmenter
from features.backbones.table import image_size
from features.cache.views import Views
from features.config import FeaturesRun
from features.dataset.images import load_images
from features.dataset.index import DatasetIndex

MEMORY_BYTES = 4 << 30
"""Maximum size of a split's decoded photos that are kept in memory."""

FRESH = 1_000_000
"""Augmented copies from this number on belong to fine-tuning: epoch e sees copy FRESH + e, which no cache holds."""


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

    def inputs(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The photos at these positions: (n, h, w, 3) uint8."""
        if self._held is not None:
            return self._held[positions]
        return self._load([self.rows[position] for position in positions])

    def _load(self, rows: Sequence[int]) -> npt.NDArray[np.uint8]:
        return load_images(self._index, rows, self._size, self._crop, os.cpu_count() or 1)


class PhotoViews:
    """Training photos as a network sees them in each epoch: (n, h, w, 3) float32 in 0…255.

    Without `views`, every epoch shows fresh views, of which about `clean_share` are clean, besides those that the policy itself
    leaves clean. With `views`, it shows the copies of a cache with this policy and the seed `cache_seed`.
    """

    def __init__(
        self,
        photos: Photos,
        augment: Augmenter,
        seed: int,
        clean_share: float = 0.0,
        views: Views | None = None,
        cache_seed: int = 0,
    ) -> None:
        self.labels = photos.labels
        self._photos = photos
        self._augment = augment
        self._seed = seed
        self._clean_share = clean_share
        self._views = views
        self._view_seed = seed if views is None else cache_seed

    def copies_of_epoch(self, epoch: int) -> npt.NDArray[np.int32]:
        """Which copy of each photo epoch `epoch` (from 0) shows, 0 = clean: (n,) int32, a pure function of (seed, epoch)."""
        if self._views is not None:
            return self._views.of_epoch(epoch, len(self._photos), self._seed)
        random = np.random.Generator(np.random.Philox(key=np.array([self._seed, epoch], np.uint64)))
        clean = random.random(len(self._photos)) < self._clean_share
        return np.where(clean, 0, FRESH + epoch).astype(np.int32)

    def shown(self, positions: npt.NDArray[np.int64], copies: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """The photos at these positions, each as its copy."""
        photos = self._photos
        views: Any = photos.inputs(positions).astype(np.float32)
        clean, drawn = views, [copy for copy in np.unique(copies).tolist() if copy]
        for copy in drawn:
            identities = [photos.identities[p] if c == copy else None for p, c in zip(positions, copies, strict=True)]
            seen = self._augment(clean, identities, self._view_seed, photos.split, copy)
            views = seen if len(drawn) == 1 else np.where((copies == copy)[:, None, None, None], seen, views)
        return np.asarray(views)
