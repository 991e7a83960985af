"""Blocks, the photos of one shard: how splits are cut into them, and the task that computes one on a worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from features.backbones.extract import extractor
from features.backbones.projection import MapMoments, Projection, add_moments, moments_of
from features.backbones.table import image_size
from features.cache.checksums import Checksum, write_checksum
from features.cache.mirror import push_shard
from features.cache.shards import Shard, write_shard
from features.cache.store import Store
from features.config import FeaturesConfig
from features.dataset.images import load_images
from features.dataset.index import SPLITS, DatasetIndex
from features.runtime.atomic import file_sha256
from features.runtime.errors import CacheError


@dataclass(frozen=True)
class Block:
    """The photos of one shard of a split; each copy of a block is one shard file."""

    split: str
    number: int
    of: int
    rows: tuple[int, ...]

    def file(self, copy: int) -> str:
        """`train-c003-00007-of-00012.tfrecord`; without the copy for val and test."""
        infix = f"-c{copy:03d}" if self.split == "train" else ""
        return f"{self.split}{infix}-{self.number:05d}-of-{self.of:05d}.tfrecord"


@dataclass(frozen=True)
class Task:
    """One unit of work: decode a block's photos once, and write the missing copies.

    `photos` is only the block's part of the index, to keep the task small.
    """

    features: str
    photos: DatasetIndex
    folder: Path
    block: Block
    copies: tuple[int, ...]
    crop_to_bbox: bool
    threads: int
    store: Store | None
    projections: tuple[Projection, ...] = ()


@dataclass(frozen=True)
class Done:
    """The shards that a task wrote, by file name, and the number of views it computed."""

    shards: dict[str, Checksum]
    views: int


def plan_blocks(index: DatasetIndex, images_per_shard: int) -> list[Block]:
    """Cuts each split into blocks of `images_per_shard` photos; the last one may be smaller."""
    blocks = []
    for split in SPLITS:
        rows = index.of_split(split).index.tolist()
        pieces = [rows[start : start + images_per_shard] for start in range(0, len(rows), images_per_shard)]
        blocks += [Block(split, number, len(pieces), tuple(piece)) for number, piece in enumerate(pieces)]
    return blocks


def write_block(task: Task) -> Done:
    """Decodes a block's photos and writes its missing copies (on a worker)."""
    config = FeaturesConfig.model_validate_json(task.features)
    extract = extractor(task.features).project(task.projections)
    block = task.block
    chosen = task.photos.table
    images = _images(task)
    labels, rows = chosen["label"].to_numpy(np.int64), np.asarray(block.rows, np.int64)
    identities = chosen["sha256"].tolist()
    done: dict[str, Checksum] = {}
    for copy in task.copies:
        features = extract(images, identities if copy else None, block.split, copy)
        if not np.isfinite(features).all():
            raise _not_finite(block.split)
        if np.abs(features).max() > np.finfo(config.dtype).max:
            raise CacheError(
                f"features reach {np.abs(features).max():g}, which is too large for float16. Set `features.dtype: float32`."
            )
        path = task.folder / block.file(copy)
        write_shard(path, Shard(features.astype(config.dtype), labels, rows))
        done[path.name] = Checksum(file_sha256(path), tuple(features.shape[1:]), extract.parts)
        write_checksum(path, done[path.name])
        if task.store:
            push_shard(task.store, path)
    return Done(done, len(images) * len(task.copies))


def sum_maps(task: Task) -> list[MapMoments]:
    """The sums over the maps of a block's clean photos, one per map, from which projections are fitted (on a worker)."""
    batches = [[moments_of(x) for x in maps] for maps in extractor(task.features).maps(_images(task))]
    found = [add_moments(of_one_map) for of_one_map in zip(*batches, strict=True)]
    if not all(np.isfinite(sums.products).all() for sums in found):
        raise _not_finite(task.block.split)
    return found


def _not_finite(split: str) -> CacheError:
    return CacheError(
        f"the backbone output NaN or infinity for photos of {split}. Check the weights and preprocessing."
    )


def _images(task: Task) -> npt.NDArray[np.uint8]:
    size = image_size(FeaturesConfig.model_validate_json(task.features))
    return load_images(task.photos, range(len(task.photos.table)), size, task.crop_to_bbox, task.threads)
