"""FeatureCache: the outputs of a frozen backbone for every photo and for K augmented copies of every training photo.

Opening and reading one does not import TensorFlow, Keras or JAX.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from features.augmentation.policies import of_policy, policy_name
from features.backbones.projection import Projection
from features.cache.integrity import check_file, check_shards
from features.cache.keys import cache_folder, explain_key, key_parts
from features.cache.loaders import EpochBatches
from features.cache.manifest import MANIFEST, Manifest, ShardEntry, cache_key, read_manifest
from features.cache.mirror import pull
from features.cache.projections import projection_path
from features.cache.shards import MappedFeatures, Shard, copy_shards, read_shard
from features.cache.store import open_store
from features.cache.views import Views
from features.config import FeaturesRun
from features.dataset.index import SPLITS, load_index
from features.pooling import Layout, columns_of, layout, parse_pooling
from features.runtime.errors import CacheError
from features.runtime.log import counted


class FeatureCache:
    """A finished cache, open for reading: `arrays` copies features into memory, `mapped` leaves them in their files."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> FeatureCache:
        """Opens the cache in `folder`. Raises CacheError when its manifest is missing (the build was not finished) or damaged."""
        return cls(folder, read_manifest(folder))

    def __repr__(self) -> str:
        return f"FeatureCache({str(self.folder)!r}, {self.manifest.splits}, copies={self.copies})"

    @property
    def key(self) -> str:
        """The full key (64 hex digits)."""
        return self.manifest.key

    @property
    def copies(self) -> int:
        """The number of augmented copies of the training split."""
        return self.manifest.copies

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by label."""
        return self.manifest.class_names

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one photo's features."""
        return self.manifest.feature_shape

    @property
    def parts(self) -> Layout:
        """The parts that a record was pooled to, in order, with the number of columns of each; empty for unpooled maps."""
        return self.manifest.parts or _old_parts(self.manifest)

    def part_widths(self, parts: str | None = None) -> tuple[int, ...]:
        """The number of columns of each part of a record, or only of `parts`. Raises UsageError for a part that is not cached."""
        if parts is not None:
            columns_of(self.parts, parts, "features.parts")
        chosen = None if parts is None else {part.name for part in parse_pooling(parts)}
        return tuple(width for name, width in self.parts if chosen is None or name in chosen)

    def shape_of(self, parts: str | None = None) -> tuple[int, ...]:
        """The shape of one photo's features, or only of `parts`."""
        return self.feature_shape if parts is None else (sum(self.part_widths(parts)),)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The projections of the covariances, one per map. Raises CacheError when one of their files is missing or damaged."""
        return tuple(Projection(path.read_bytes()) for path in self._projection_files())

    def arrays(
        self, split: str, copy: int = 0, dtype: npt.DTypeLike | None = None, parts: str | None = None
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int32]]:
        """Features (n, *feature_shape) and labels (n,) int32 of a split, in memory; `copy` 0 is the clean one.

        `dtype` defaults to the stored one. With `parts` (e.g. `avg+max`), only their columns: (n, columns). Raises CacheError for
        a copy that is not cached or a shard that is missing or damaged, UsageError for a part that is not cached.
        """
        manifest, files = self.manifest, self._files(split, copy)
        features, labels = copy_shards(files, manifest.feature_shape, manifest.dtype, dtype or manifest.dtype)
        if parts is not None:
            slices = columns_of(self.parts, parts, "features.parts")
            features = np.concatenate([features[:, columns] for columns in slices], axis=1)
        return features, labels.astype(np.int32)

    def mapped(self, split: str, copy: int = 0) -> MappedFeatures:
        """The features of a split, mapped from disk: rows are read when indexed, so they need not fit in memory.

        The first time a process maps a shard, it reads the whole shard to check it. Raises CacheError like `arrays`.
        """
        return MappedFeatures([shard.features for shard in self._shards(split, copy)])

    def labels(self, split: str) -> npt.NDArray[np.int32]:
        """The labels of a split, in the order of `arrays`: (n,) int32."""
        return np.concatenate([shard.labels for shard in self._shards(split, 0)]).astype(np.int32)

    def images(self, split: str) -> npt.NDArray[np.int64]:
        """The photo ids (rows of the index) of a split, in the order of `arrays`: (n,) int64."""
        return np.concatenate([shard.images for shard in self._shards(split, 0)])

    def epoch(
        self, epoch: int, views: Views | None = None, seed: int = 0
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int32]]:
        """The training features of epoch `epoch` (from 0): (n, *feature_shape) in the stored dtype, and labels (n,) int32.

        The copy of each photo is a pure function of (seed, epoch); see Views. Rows are in the order of `arrays`.
        """
        copies = self._checked(views).of_epoch(epoch, self.manifest.splits["train"], seed)
        shown = np.unique(copies)
        if len(shown) == 1:
            return self.arrays("train", int(shown[0]))
        features = np.empty((len(copies), *self.feature_shape), self.manifest.dtype)
        for copy in shown:
            rows = np.flatnonzero(copies == copy)
            features[rows] = self.mapped("train", int(copy))[rows]
        return features, self.labels("train")

    def batches(
        self,
        split: str = "train",
        batch_size: int = 32,
        views: Views | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ) -> EpochBatches:
        """Batches, epoch by epoch, read from the mapped shards; the copies of train change with the epoch.

        Use `keras_dataset` or `tf_dataset` of the result for Keras or tf.data.
        """
        checked = self._checked(views) if split == "train" else Views(copies=0)
        copies = [self.mapped(split, copy) for copy in range((checked.copies or 0) + 1)]
        return EpochBatches(copies, self.labels(split), batch_size, checked, seed, shuffle and split == "train")

    def _checked(self, views: Views | None) -> Views:
        return (views or Views()).checked(self.copies, self.manifest.policy)

    def _files(self, split: str, copy: int) -> list[tuple[Path, int]]:
        """The shards of a split as (path, records), checked for damage. All reads of a cache go through here."""
        manifest, files = self.manifest, [(self.folder / e.file, e.records) for e in self._entries(split, copy)]
        self._projection_files()
        check_shards(files, manifest.feature_shape, manifest.dtype)
        return files

    def _projection_files(self) -> list[Path]:
        """The projection files beside the shards, checked for damage."""
        files = []
        for number, sha256 in enumerate(self.manifest.projections, start=1):
            files.append(projection_path(self.folder, number))
            check_file(files[-1], sha256)
        return files

    def _entries(self, split: str, copy: int) -> list[ShardEntry]:
        entries = [entry for entry in self.manifest.shards if (entry.split, entry.copy_number) == (split, copy)]
        if not entries:
            raise CacheError(
                f"the cache {self.folder} has no copy {copy} of {split}, only "
                f"{counted(self.copies, 'augmented copy', 'augmented copies')} of train."
            )
        return entries

    def _shards(self, split: str, copy: int) -> list[Shard]:
        manifest = self.manifest
        return [
            read_shard(path, records, manifest.feature_shape, manifest.dtype)
            for path, records in self._files(split, copy)
        ]


def cache_for(run: FeaturesRun, policy: str | None = None) -> FeatureCache:
    """The finished cache of one of the configured augmentation policies: the first, or the one called `policy`.

    Files missing in the local folder are fetched from `features.store`.

    Raises CacheError when there is no such cache (explaining the difference to the closest one) or it has too few copies,
    UsageError for a policy that is not configured.
    """
    run = of_policy(run, policy)
    parts = key_parts(run, load_index(run))
    key = cache_key(parts)
    folder = cache_folder(run, key)
    if store := open_store(run.features.store, folder.name):
        pull(store, folder, run.features.copies)
    if not (folder / MANIFEST).exists():
        nearest = explain_key(run, parts)
        raise CacheError(
            f"there is no feature cache for this configuration{f'; {nearest}' if nearest else ''}. Run `headhunt features cache`."
        )
    cache = FeatureCache.open(folder)
    if cache.key != key:
        raise CacheError(
            f"{folder / MANIFEST} belongs to another cache, {cache.key[:16]}. Run `headhunt features repair`."
        )
    if cache.copies < run.features.copies:
        raise CacheError(
            f"{run.features.copies} copies of {policy_name(run.features)} are configured, but the cache has {cache.copies}. "
            "Run `headhunt features cache` to add the missing ones."
        )
    return cache


def _old_parts(manifest: Manifest) -> Layout:
    """The parts of an old cache whose manifest does not name them; it was pooled to avg, max or both."""
    pooling = manifest.key_parts.get("pooling", "none")
    named = parse_pooling(pooling)
    return layout(pooling, [manifest.feature_shape[-1] // len(named)]) if named else ()


def split_copies(copies: int) -> list[tuple[str, int]]:
    """Every (split, copy) in a cache with this many augmented copies."""
    return [("train", copy) for copy in range(copies + 1)] + [(split, 0) for split in SPLITS[1:]]
