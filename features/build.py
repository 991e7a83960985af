"""`features cache`: plan the shards, compute what is missing on workers, write the manifest last."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from features.atomic import make_folder, write_text
from features.augment import policy_name
from features.backbones import compute_dtype, image_size, is_file
from features.cache import (
    FORMAT_VERSION,
    MANIFEST,
    FeatureCache,
    Manifest,
    ShardEntry,
    cache_folder,
    cache_key,
    key_parts,
    split_copies,
    write_manifest,
)
from features.command import log, relative
from features.config import FeaturesConfig, FeaturesRun
from features.dataset import SPLITS, DatasetIndex, load_index
from features.errors import CacheError
from features.executors import open_executor
from features.extract import extractor
from features.images import load_images
from features.shards import Shard, shard_bytes, write_shard


@dataclass(frozen=True)
class Block:
    """The images of one shard of a split; each of its copies is one shard file."""

    split: str
    number: int
    of: int
    rows: tuple[int, ...]

    def file(self, copy: int) -> str:
        """`train-c003-00007-of-00012.tfrecord`; without the copy where there is only one."""
        infix = f"-c{copy:03d}" if self.split == "train" else ""
        return f"{self.split}{infix}-{self.number:05d}-of-{self.of:05d}.tfrecord"


@dataclass(frozen=True)
class Task:
    """What one worker does at a time: decode a block's images once, and write the copies that are missing.

    `photos` is the block's part of the index, so that a task does not carry the whole of it.
    """

    features: str
    photos: DatasetIndex
    folder: Path
    block: Block
    copies: tuple[int, ...]
    crop_to_bbox: bool
    threads: int


@dataclass(frozen=True)
class Done:
    """What a task wrote: the sha256 of each file, and the shape of one image's features."""

    sha256: dict[str, str]
    feature_shape: tuple[int, ...]
    views: int


def plan_blocks(index: DatasetIndex, images_per_shard: int) -> list[Block]:
    """Cuts each split into blocks of `images_per_shard` images; depends on nothing else."""
    blocks = []
    for split in SPLITS:
        rows = index.of_split(split).index.tolist()
        pieces = [rows[start : start + images_per_shard] for start in range(0, len(rows), images_per_shard)]
        blocks += [Block(split, number, len(pieces), tuple(piece)) for number, piece in enumerate(pieces)]
    return blocks


def build_cache(run: FeaturesRun) -> dict[str, Any]:
    """Builds, resumes or grows the cache of the configuration; returns the `--json` object of `features cache`.

    A shard that is on disk is whole, since it was renamed to its name when it was; it is kept when its checksum file says
    the same. Raises HeadhuntError when a backbone's weights cannot be had or a photo cannot be read.
    """
    started = time.monotonic()
    index = load_index(run)
    parts = key_parts(run, index)
    folder = make_folder(cache_folder(run, cache_key(parts)))
    features = _for_workers(run.features)
    blocks = plan_blocks(index, run.features.images_per_shard)
    wanted = split_copies(max(run.features.copies, _cached_copies(folder)))
    kept, shape = _finished(run, folder, blocks, wanted)
    tasks = []
    for block in blocks:
        copies = tuple(copy for split, copy in wanted if split == block.split and block.file(copy) not in kept)
        if copies:
            photos = DatasetIndex(index.table.iloc[list(block.rows)], index.class_names, index.root)
            crop = bool(parts["crop_to_bbox"])
            tasks.append(Task(features, photos, folder.resolve(), block, copies, crop, _threads(run)))
    computed_shape, computed = _compute(run, tasks, folder, kept)
    named = policy_name(run.features)  # the same layers may have had another name in an earlier configuration
    if tasks or not (folder / MANIFEST).exists() or FeatureCache.open(folder).manifest.policy != named:
        manifest = _manifest(run, index, parts, blocks, wanted, kept, computed_shape or shape)
        write_manifest(folder, manifest)
    cache = FeatureCache.open(folder)
    seconds = time.monotonic() - started
    written = sum(len(task.copies) for task in tasks)
    result = {
        "cache": relative(folder),
        "key": cache.key,
        "copies": cache.copies,
        "records": sum(entry.records for entry in cache.manifest.shards),
        "bytes": sum((folder / entry.file).stat().st_size for entry in cache.manifest.shards),
        "shards_written": written,
        "shards_reused": len(cache.manifest.shards) - written,
        "seconds": round(seconds, 3),
        "images_per_second": round(computed / seconds, 1),
    }
    if tasks:
        write_text(folder / "build.json", json.dumps(result, indent=1) + "\n")
    return result


def write_block(task: Task) -> Done:
    """Decodes a block's images and writes its missing copies (on a worker)."""
    config = FeaturesConfig.model_validate_json(task.features)
    extract = extractor(task.features)
    block = task.block
    chosen = task.photos.table
    images = load_images(task.photos, range(len(chosen)), image_size(config), task.crop_to_bbox, task.threads)
    labels, rows = chosen["label"].to_numpy(np.int64), np.asarray(block.rows, np.int64)
    identities = chosen["sha256"].tolist()
    sha256 = {}
    for copy in task.copies:
        features = extract(images, identities if copy else None, block.split, copy)
        if not np.isfinite(features).all():
            raise CacheError(
                f"the backbone gave NaN or infinity for photos of {block.split}; check weights and preprocessing."
            )
        if np.abs(features).max() > np.finfo(config.dtype).max:
            raise CacheError(
                f"features reach {np.abs(features).max():g}, too large for float16. Set `features.dtype: float32`."
            )
        path = task.folder / block.file(copy)
        write_shard(path, Shard(features.astype(config.dtype), labels, rows))
        digest = file_sha256(path)
        write_text(_checksum_file(path), json.dumps({"sha256": digest, "shape": features.shape[1:]}))
        sha256[path.name] = digest
    return Done(sha256, tuple(features.shape[1:]), len(images) * len(task.copies))


def _for_workers(config: FeaturesConfig) -> str:
    """The section as a worker needs it, as JSON: paths absolute, and the compute dtype of the machine that made the key."""
    paths = {"backbone": config.backbone} if is_file(config) else {}
    if config.weights not in ("imagenet", "random"):
        paths["weights"] = config.weights
    absolute = {name: str(Path(path).resolve()) for name, path in paths.items()}
    return config.model_copy(update={**absolute, "compute": compute_dtype(config)}).model_dump_json()


def _compute(run: FeaturesRun, tasks: list[Task], folder: Path, kept: dict[str, str]) -> tuple[tuple[int, ...], int]:
    """Runs the tasks with a progress bar; adds what they wrote to `kept`. Gives the feature shape and the views computed."""
    total = sum(len(task.copies) * len(task.block.rows) for task in tasks)
    if not tasks:
        log.print(f"All {len(kept)} shards are there.")
        return (), 0
    backend = "jax" if run.features.workers.gpus else "tensorflow"
    log.print(f"Computing {total} views of photos into {relative(folder)} …")
    shape: tuple[int, ...] = ()
    progress = Progress(
        TextColumn("features"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        console=log, disable=not log.is_terminal,
    )  # fmt: skip
    done, started, said = 0, time.monotonic(), time.monotonic()
    with open_executor(run.features.workers, run.workdir, {"KERAS_BACKEND": backend}) as executor, progress:
        bar = progress.add_task("", total=total, rate="")
        for _, result in executor.map(write_block, tasks):
            kept.update(result.sha256)
            shape = result.feature_shape
            done += result.views
            rate = done / (time.monotonic() - started)
            progress.update(bar, completed=done, rate=f"{rate:.1f} images/s")
            if not log.is_terminal and (time.monotonic() - said > 10 or done == total):
                said = time.monotonic()
                log.print(f"  {done} of {total}, {rate:.1f} images/s, {(total - done) / rate:.0f} s left")
    return shape, done


def _manifest(
    run: FeaturesRun,
    index: DatasetIndex,
    parts: dict[str, Any],
    blocks: list[Block],
    wanted: list[tuple[str, int]],
    kept: dict[str, str],
    shape: tuple[int, ...],
) -> Manifest:
    entries = [
        ShardEntry(
            file=block.file(copy), split=split, copy_number=copy, records=len(block.rows), sha256=kept[block.file(copy)]
        )
        for split, copy in wanted
        for block in blocks
        if block.split == split
    ]
    return Manifest(
        format_version=FORMAT_VERSION,
        key=cache_key(parts),
        key_parts=parts,
        feature_shape=shape,
        dtype=run.features.dtype,
        class_names=index.class_names,
        policy=policy_name(run.features),
        copies=sum(split == "train" for split, _ in wanted) - 1,
        splits={split: sum(len(block.rows) for block in blocks if block.split == split) for split in SPLITS},
        shards=tuple(entries),
    )


def _finished(
    run: FeaturesRun, folder: Path, blocks: list[Block], wanted: list[tuple[str, int]]
) -> tuple[dict[str, str], tuple[int, ...]]:
    """The shards that are on disk in full, with their sha256, and the shape of one image's features.

    A shard's checksum file is written after it; what was cut short since then has another length.
    """
    finished: dict[str, str] = {}
    shape: tuple[int, ...] = ()
    for block in blocks:
        for path in (folder / block.file(copy) for split, copy in wanted if split == block.split):
            if path.exists() and _checksum_file(path).exists():
                known = json.loads(_checksum_file(path).read_text(encoding="utf-8"))
                shape = tuple(known["shape"])
                if path.stat().st_size == shard_bytes(len(block.rows), shape, run.features.dtype):
                    finished[path.name] = str(known["sha256"])
    return finished, shape


def discard_shard(path: Path) -> None:
    """Takes a damaged shard away, so that the next build computes it again."""
    _checksum_file(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _cached_copies(folder: Path) -> int:
    """The copies that a finished cache has: asking for fewer keeps them."""
    try:
        return FeatureCache.open(folder).copies
    except CacheError:
        return 0


def _checksum_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256.json")


def file_sha256(path: Path) -> str:
    """The sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _threads(run: FeaturesRun) -> int:
    return max(1, (os.cpu_count() or 1) // run.features.workers.count)
