"""FeatureCache: the outputs of a frozen backbone for every image and for K augmented copies of every training image.

Opening and reading one imports neither TensorFlow nor Keras nor JAX.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from features.atomic import write_text
from features.augment import resolve_policy
from features.backbones import compute_dtype, image_size, preprocessing, weights_digest
from features.config import FeaturesConfig, FeaturesRun, Section
from features.dataset import SPLITS, DatasetIndex, load_index
from features.errors import CacheError
from features.shards import Shard, read_shard

FORMAT_VERSION = 1

MANIFEST = "manifest.json"


class ShardEntry(Section):
    """One shard file: what it holds and what it must be."""

    file: str
    split: Literal["train", "val", "test"]
    copy_number: int
    records: int
    sha256: str


class Manifest(Section):
    """What a cache holds. Its bytes are a function of the configuration and the images alone."""

    format_version: int
    key: str
    key_parts: dict[str, Any]
    feature_shape: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...]
    policy: str
    copies: int
    splits: dict[str, int]
    shards: tuple[ShardEntry, ...]


def key_parts(run: FeaturesRun, index: DatasetIndex) -> dict[str, Any]:
    """Everything that the cached numbers depend on, by name. Not the number of copies: a cache grows by computing one more."""
    config = run.features
    return {
        "format_version": FORMAT_VERSION,
        "images": index.fingerprint,
        "crop_to_bbox": getattr(run.dataset, "crop_to_bbox", False),
        "image_size": list(image_size(config)),
        "backbone": "file" if config.backbone.endswith(".keras") else config.backbone.lower(),
        "weights": weights_digest(config),
        "preprocessing": preprocessing(config),
        "pooling": config.pooling,
        "dtype": config.dtype,
        "compute": compute_dtype(config),
        "batch_size": config.batch_size,
        "images_per_shard": config.images_per_shard,
        "augmentation": _augmentation_parts(config),
        "seed": config.seed,
    }


def _augmentation_parts(config: FeaturesConfig) -> dict[str, Any]:
    """The policy; and who draws, where that decides the views."""
    policy = resolve_policy(config.augmentation)
    draws = {} if policy.merged else {"draws": "jax" if config.workers.gpus else "tensorflow"}
    return {**policy.model_dump(mode="json"), **draws}


def cache_key(parts: dict[str, Any]) -> str:
    """sha256 (hex) of the parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def cache_folder(run: FeaturesRun, key: str) -> Path:
    """`cache/<first 16 digits of the key>`."""
    return run.workdir / "cache" / key[:16]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest, which makes the folder a cache."""
    write_text(folder / MANIFEST, json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")


class FeatureCache:
    """A finished cache, open for reading. Arrays are views of the mapped shards, joined where there are several."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> FeatureCache:
        """Opens the cache in `folder`; CacheError when it has no manifest (a build was not finished) or a damaged one."""
        try:
            text = (folder / MANIFEST).read_text(encoding="utf-8")
            return cls(folder, Manifest.model_validate_json(text))
        except FileNotFoundError:
            raise CacheError(
                f"there is no finished feature cache in {folder}. Run `headhunt features cache`."
            ) from None
        except ValidationError as error:
            raise CacheError(
                f"{folder / MANIFEST} is damaged or of another version: {error.error_count()} faults. Delete it and run "
                "`headhunt features cache`, which keeps the finished shards."
            ) from error

    def __repr__(self) -> str:
        return f"FeatureCache({str(self.folder)!r}, {self.manifest.splits}, copies={self.copies})"

    @property
    def key(self) -> str:
        """The whole key (64 hex digits)."""
        return self.manifest.key

    @property
    def copies(self) -> int:
        """Augmented copies of the training split."""
        return self.manifest.copies

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by label."""
        return self.manifest.class_names

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one image's features."""
        return self.manifest.feature_shape

    def arrays(self, split: str, copy: int = 0) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int32]]:
        """Features (n, *feature_shape) in the stored dtype and labels (n,) int32 of a split; `copy` 0 is the clean one.

        Raises CacheError for a copy that is not cached, or a shard that is missing or cut short.
        """
        shards = self._shards(split, copy)
        features = np.concatenate([shard.features for shard in shards])
        return features, np.concatenate([shard.labels for shard in shards]).astype(np.int32)

    def images(self, split: str) -> npt.NDArray[np.int64]:
        """The image ids (rows of the index) of a split, in the order of `arrays`: (n,) int64."""
        return np.concatenate([shard.images for shard in self._shards(split, 0)])

    def _shards(self, split: str, copy: int) -> list[Shard]:
        entries = [entry for entry in self.manifest.shards if (entry.split, entry.copy_number) == (split, copy)]
        if not entries:
            raise CacheError(
                f"the cache {self.folder} holds no copy {copy} of {split}; it has {self.copies} augmented copies of train."
            )
        manifest = self.manifest
        return [
            read_shard(self.folder / entry.file, entry.records, manifest.feature_shape, manifest.dtype)
            for entry in entries
        ]


def cache_for(run: FeaturesRun) -> FeatureCache:
    """The finished cache that the configuration names.

    Raises CacheError when there is none (and says what differs from the one that is there), or when it has too few copies.
    """
    parts = key_parts(run, load_index(run))
    folder = cache_folder(run, cache_key(parts))
    if not (folder / MANIFEST).exists():
        raise CacheError(
            f"there is no feature cache for this configuration{_difference(run, parts)}. Run `headhunt features cache`."
        )
    cache = FeatureCache.open(folder)
    if cache.copies < run.features.copies:
        raise CacheError(
            f"features.copies is {run.features.copies}, but the cache holds {cache.copies}. Run `headhunt features cache`: it "
            "adds the missing ones."
        )
    return cache


def _difference(run: FeaturesRun, parts: dict[str, Any]) -> str:
    """How the cache that is there differs from the one that is wanted."""
    for manifest in sorted((run.workdir / "cache").glob(f"*/{MANIFEST}")):
        try:
            other = FeatureCache.open(manifest.parent).manifest.key_parts
        except CacheError:
            continue
        changed = [name for name in parts if parts[name] != other.get(name)]
        return f" ({manifest.parent.name} was made with another {', '.join(changed)})"
    return ""


def split_copies(copies: int) -> list[tuple[str, int]]:
    """Every (split, copy) that a cache with this many augmented copies holds."""
    return [("train", copy) for copy in range(copies + 1)] + [(split, 0) for split in SPLITS[1:]]
