"""`features cache`: plan the shards, compute missing ones on workers, write the manifest last."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from features.audit.variation import warn_of_constant_features
from features.augmentation.policies import of_policy, policy_name, policy_sections
from features.backbones.projection import widest_covariance
from features.backbones.table import pooling
from features.building.blocks import Block, Task, plan_blocks, write_block
from features.building.contact_sheet import Sheet, sheet_of, write_contact_sheet
from features.building.fitting import are_fitted, projections
from features.cache.checksums import Checksum, discard_shard, read_checksum
from features.cache.feature_cache import FeatureCache, split_copies
from features.cache.keys import (
    AUGMENTED,
    augmentation_parts,
    cache_folder,
    changed_parts,
    explain_key,
    for_workers,
    key_parts,
    sound_manifests,
)
from features.cache.manifest import FORMAT_VERSION, MANIFEST, Manifest, ShardEntry, cache_key, write_manifest
from features.cache.mirror import exchange, push_manifest
from features.cache.projections import read_projections
from features.cache.shards import shard_bytes
from features.cache.store import Store, open_store
from features.cache.takeover import take_over
from features.config import FeaturesRun
from features.dataset.index import SPLITS, DatasetIndex, load_index
from features.runtime.atomic import make_folder, only_process, remove_leftovers, write_text
from features.runtime.commands.progress import progress
from features.runtime.errors import CacheError, UsageError
from features.runtime.log import counted, log, relative
from features.runtime.workers.executors import check_devices, open_executor


def build_caches(run: FeaturesRun) -> dict[str, Any]:
    """Builds the caches of the configured policies, one after the other. Returns the `--json` object of `features cache`.

    The object is that of the first policy, with the others in `others`, by policy. `variation` (see Variation) tells how much the
    clean features vary; all policies share these. Raises like `build_cache`.
    """
    check_devices(run.features.workers)
    own, *names = policy_sections(run.features)
    _check_policies_differ(run)
    for name, section in policy_sections(run.features).items():
        if section.copies and not augmentation_parts(section)["layers"]:
            log.print(
                f"The policy {name} changes nothing: its copies repeat the clean photos. Set its `copies: 0`, or choose another.",
                style="yellow",
            )
    result, others = build_cache(of_policy(run, own)), {}
    for name in names:
        log.print(f"Policy {name}:")
        others[name] = build_cache(of_policy(run, name))
    first = of_policy(run, own)
    index = load_index(first)
    cache = FeatureCache.open(cache_folder(first, result["key"]))
    result["variation"] = warn_of_constant_features(cache, index)._asdict()
    return {**result, "others": others} if others else result


def _check_policies_differ(run: FeaturesRun) -> None:
    """Raises UsageError for two policies with the same layers, which would be one cache with two names."""
    seen: dict[str, str] = {}
    for name, section in policy_sections(run.features).items():
        layers = json.dumps(augmentation_parts(section))
        if layers in seen:
            raise UsageError(
                f"features.augmentation: {seen[layers]!r} and {name!r} have the same layers, so they would share one cache. "
                "Keep one of them."
            )
        seen[layers] = name


def build_cache(run: FeaturesRun, copies: int = 0) -> dict[str, Any]:
    """Builds, resumes or grows the cache of the first configured policy, to `copies` augmented copies if these are more.

    A shard on disk is complete, because it is renamed into place only then; it is kept if its checksum file agrees. Clean shards
    are reused from a cache that differs only in its augmentation. Raises HeadhuntError when a backbone's weights are unavailable
    or a photo cannot be read, UsageError when another process is building in this folder.
    """
    started = time.monotonic()
    run = of_policy(run)
    index = load_index(run)
    parts = key_parts(run, index)
    folder = make_folder(cache_folder(run, cache_key(parts)))
    with only_process(folder / ".lock", f"another build is writing to {relative(folder)}"):
        remove_leftovers(folder)
        blocks = plan_blocks(index, run.features.images_per_shard)
        wanted = split_copies(max(run.features.copies, copies, _cached_copies(folder)))
        _take_over(run, parts, folder)
        store = open_store(run.features.store, folder.name)
        kept = _finished(run, folder, blocks, wanted, store)
        if not kept and (nearest := explain_key(run, parts)):
            log.print(f"Building a new cache, {folder.name}: {nearest}.")
        tasks = _tasks(run, index, folder, blocks, wanted, kept, store)
        fitted = are_fitted(run, folder, store)
        sheet = sheet_of(for_workers(run), index, folder.resolve(), max(copy for _, copy in wanted))
        computed = _compute(run, index, tasks, folder, kept, sheet, store)
        remove_leftovers(folder)
        named = policy_name(run.features)  # an earlier configuration may have named the same layers differently
        if (
            tasks
            or not fitted
            or not (folder / MANIFEST).exists()
            or FeatureCache.open(folder).manifest.policy != named
        ):
            write_manifest(folder, _manifest(run, index, parts, blocks, wanted, kept, folder))
        cache = FeatureCache.open(folder)
        if store:
            push_manifest(store, folder)
        seconds = time.monotonic() - started
        written = sum(len(task.copies) for task in tasks)
        result = {
            "cache": relative(folder),
            "key": cache.key,
            "copies": cache.copies,
            "records": sum(entry.records for entry in cache.manifest.shards),
            "bytes": sum(
                shard_bytes(e.records, cache.feature_shape, run.features.dtype) for e in cache.manifest.shards
            ),
            "shards_written": written,
            "shards_reused": len(cache.manifest.shards) - written,
            "seconds": round(seconds, 3),
            "images_per_second": round(computed / seconds, 1),
            "policy": named,
        }
        if tasks:
            write_text(folder / "build.json", json.dumps(result, indent=1) + "\n")
    return result


def _tasks(
    run: FeaturesRun,
    index: DatasetIndex,
    folder: Path,
    blocks: list[Block],
    wanted: list[tuple[str, int]],
    kept: dict[str, Checksum],
    store: Store | None,
) -> list[Task]:
    """One task per block with missing copies."""
    features, crop = for_workers(run).features.model_dump_json(), bool(getattr(run.dataset, "crop_to_bbox", False))
    tasks = []
    for block in blocks:
        copies = tuple(copy for split, copy in wanted if split == block.split and block.file(copy) not in kept)
        if copies:
            photos = DatasetIndex(index.table.iloc[list(block.rows)], index.class_names, index.root)
            tasks.append(Task(features, photos, folder.resolve(), block, copies, crop, _threads(run), store))
    return tasks


def _take_over(run: FeaturesRun, parts: dict[str, Any], folder: Path) -> None:
    """Reuses the clean shards of caches that differ only in augmentation, see `take_over`."""
    for other, manifest in sound_manifests(run):
        if other == folder or not AUGMENTED.issuperset(changed_parts(parts, manifest.key_parts)):
            continue
        take_over(other, manifest, folder, augmented=False)


def _compute(
    run: FeaturesRun,
    index: DatasetIndex,
    tasks: list[Task],
    folder: Path,
    kept: dict[str, Checksum],
    sheet: Sheet,
    store: Store | None,
) -> int:
    """Runs the tasks with progress, adds their shards to `kept` and draws the sheet. Returns the number of computed views."""
    total = sum(len(task.copies) * len(task.block.rows) for task in tasks)
    if not tasks and are_fitted(run, folder, store):
        log.print(f"{'The shard is' if len(kept) == 1 else f'All {len(kept)} shards are'} already cached.")
        return 0
    backend = "jax" if run.features.workers.gpus else "tensorflow"
    done = 0
    with open_executor(run.features.workers, run.workdir, {"KERAS_BACKEND": backend}) as executor:
        projected = projections(run, index, folder, executor, _threads(run), store)
        log.print(f"Computing features of {counted(total, 'view')} in {relative(folder)} …")
        with progress("features", total, "images") as advance:
            for _, result in executor.map(write_block, [replace(task, projections=projected) for task in tasks]):
                kept.update(result.shards)
                done += result.views
                advance(result.views)
            list(executor.map(write_contact_sheet, [sheet]))
    return done


def _manifest(
    run: FeaturesRun,
    index: DatasetIndex,
    parts: dict[str, Any],
    blocks: list[Block],
    wanted: list[tuple[str, int]],
    kept: dict[str, Checksum],
    folder: Path,
) -> Manifest:
    known, maps = next(iter(kept.values())), len(run.features.cuts) or 1
    projected = read_projections(folder, maps) if widest_covariance(pooling(run.features)) else ()
    entries = [
        ShardEntry(
            file=block.file(copy),
            split=split,
            copy_number=copy,
            records=len(block.rows),
            sha256=kept[block.file(copy)].sha256,
        )
        for split, copy in wanted
        for block in blocks
        if block.split == split
    ]
    return Manifest(
        format_version=FORMAT_VERSION,
        key=cache_key(parts),
        key_parts=parts,
        feature_shape=known.feature_shape,
        dtype=run.features.dtype,
        class_names=index.class_names,
        policy=policy_name(run.features),
        copies=sum(split == "train" for split, _ in wanted) - 1,
        splits={split: sum(len(block.rows) for block in blocks if block.split == split) for split in SPLITS},
        shards=tuple(entries),
        parts=known.parts,
        projections=tuple(projection.sha256 for projection in projected or ()),
    )


def _finished(
    run: FeaturesRun, folder: Path, blocks: list[Block], wanted: list[tuple[str, int]], store: Store | None
) -> dict[str, Checksum]:
    """The finished shards, on disk or in the store, by name; others are deleted.

    A finished shard has a checksum file, which is written after it, and the right length (it may have been truncated since).
    """
    records = {block.file(copy): len(block.rows) for block in blocks for split, copy in wanted if split == block.split}
    finished: dict[str, Checksum] = {}
    for name, count in records.items():
        known = read_checksum(folder / name)
        if known and (folder / name).stat().st_size == shard_bytes(count, known.feature_shape, run.features.dtype):
            finished[name] = known
        else:
            discard_shard(folder / name)
    return finished | exchange(store, folder, records, run.features.dtype) if store else finished


def _cached_copies(folder: Path) -> int:
    """The number of copies in a finished cache; a configuration with fewer keeps them."""
    try:
        return FeatureCache.open(folder).copies
    except CacheError:
        return 0


def _threads(run: FeaturesRun) -> int:
    """Threads that decode photos in a worker: one per core of the worker."""
    workers = run.features.workers
    return max(1, int(workers.cpus or (os.cpu_count() or 1) // workers.count))
