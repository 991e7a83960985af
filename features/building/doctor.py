"""`features verify` and `features repair`: check a cache against its manifest and the index, and fix it."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.augmentation.policies import of_policy, policy_sections
from features.backbones.projection import Projection
from features.backbones.table import image_size, input_range, prepared
from features.building.blocks import plan_blocks
from features.building.build import build_cache
from features.cache.checksums import Checksum, discard_shard, write_checksum
from features.cache.feature_cache import FeatureCache, split_copies
from features.cache.keys import cache_folder, key_parts
from features.cache.manifest import MANIFEST, Manifest, ShardEntry, cache_key, read_manifest
from features.cache.mirror import pull
from features.cache.projections import checksum_of, projection_path
from features.cache.shards import find_faults, parse_shard, shard_bytes
from features.cache.store import open_store
from features.config import FeaturesRun
from features.dataset.images import load_images
from features.dataset.index import SPLITS, DatasetIndex, load_index
from features.runtime.atomic import file_sha256
from features.runtime.errors import CacheError

Fault = dict[str, Any]

Bits = npt.NDArray[Any]
"""Features viewed as unsigned integers."""

CHUNK_BYTES = 1 << 18
"""Bytes checked at a time; small enough for a core's own cache."""

SAMPLED = 64
"""Number of training photos used to check the backbone's input."""

NARROW = 0.02
"""The backbone's input is a fault (nearly one colour) if its standard deviation is at most this share of its range."""


IS_FOLDER = "a folder has its name: delete or rename it"


class Checked(NamedTuple):
    """Result for one shard: its faults and its bytes; for a clean training shard also the bits of its first record, and which
    features are equal in all its records, (feature_dim,) each."""

    faults: list[Fault]
    bytes: int
    constant: tuple[Bits, npt.NDArray[np.bool_]] | None = None


def verify(run: FeaturesRun) -> dict[str, Any]:
    """Reads every byte of the caches. Returns the `--json` object of `features verify`:
    {"ok", "faults": [{"shard", "record", "what"}]}.

    A fault in the cache of a policy other than the first also has the key `policy`.

    Checks the manifest's digest; files and lengths; each file's sha256 and each record's checksum; counts, photo ids and labels
    against the index; that only train has augmented copies; NaN, infinity, and records that are all equal or constant; and the
    backbone's input (`input`: its statistics over some training photos). `constant_features` counts features that never vary over
    the clean training photos; a ReLU can cause that, so it is not a fault. Raises CacheError when there is no cache.
    """
    index = load_index(run)
    own, *names = policy_sections(run.features)
    found = _verify(of_policy(run, own), index)
    entering, faults = _check_input(of_policy(run, own), index)
    found["input"], found["faults"] = entering, [*faults, *found["faults"]]
    for name in names:
        other = _verify(of_policy(run, name), index)
        found["faults"] += [{**fault, "policy": name} for fault in other["faults"]]
        found["bytes"] += other["bytes"]
    return {"ok": not found["faults"], **found}


def _verify(run: FeaturesRun, index: DatasetIndex) -> dict[str, Any]:
    """The result of `verify` for the cache of one policy, without checking the input."""
    folder = cache_folder(run, cache_key(key_parts(run, index)))
    if store := open_store(run.features.store, folder.name):
        pull(store, folder, run.features.copies)
    try:
        cache = FeatureCache.open(folder)
    except CacheError as error:
        if not (folder / MANIFEST).exists():
            raise
        damaged: Fault = {"shard": MANIFEST, "record": None, "what": str(error).partition(". Run")[0]}
        return {"faults": [damaged], "input": {}, "bytes": 0, "constant_features": None}
    manifest = cache.manifest
    blocks = plan_blocks(index, run.features.images_per_shard)
    planned = {
        block.file(copy): (split, copy, block.rows)
        for block in blocks
        for split, copy in split_copies(cache.copies)
        if split == block.split
    }
    faults = _check_plan(manifest, {name: (split, copy) for name, (split, copy, _) in planned.items()})
    faults += _check_projections(folder, manifest)
    labels = index.table["label"].to_numpy(np.int64)

    def check(entry: ShardEntry) -> Checked:
        rows = planned[entry.file][2] if entry.file in planned else ()
        return _check(folder, manifest, entry, np.asarray(rows, np.int64), labels)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        checked = list(pool.map(check, manifest.shards))
    faults += [fault for found in checked for fault in found.faults]
    constant = _count_constant([found.constant for found in checked if found.constant is not None])
    if constant == math.prod(manifest.feature_shape):
        faults.append({"shard": "", "record": None, "what": "no feature varies over the clean training photos"})
    return {
        "faults": faults,
        "input": {},
        "bytes": sum(found.bytes for found in checked),
        "constant_features": constant,
    }


def repair(run: FeaturesRun) -> dict[str, Any]:
    """Recomputes damaged shards and keeps the others. Returns the `--json` object of `features cache`, with `repaired`.

    With several policies, the objects of the others are in `others`, as in `features cache`.
    """
    index = load_index(run)
    repaired = {name: _repair(of_policy(run, name), index) for name in policy_sections(run.features)}
    own, *names = repaired
    others = {name: repaired[name] for name in names}
    return {**repaired[own], "others": others} if others else repaired[own]


def _repair(run: FeaturesRun, index: DatasetIndex) -> dict[str, Any]:
    """Repairs the cache of one policy."""
    folder = cache_folder(run, cache_key(key_parts(run, index)))
    damaged = sorted({fault["shard"] for fault in _verify(run, index)["faults"]} - {""})
    copies = max((int(path.name[7:10]) for path in folder.glob("train-c*.tfrecord")), default=0)
    store = open_store(run.features.store, folder.name)
    if damaged:
        _trust_manifest(folder)
    for name in damaged:
        if store:
            store.delete(name)
        if name.endswith(".tfrecord"):
            discard_shard(folder / name)
    if damaged:
        (folder / MANIFEST).unlink(missing_ok=True)
    repaired = build_cache(run, copies)
    if damaged == [MANIFEST]:  # the shards can be checked only now that the manifest is readable
        return {**_repair(run, index), "repaired": damaged}
    return {**repaired, "repaired": damaged}


def _trust_manifest(folder: Path) -> None:
    """Sets the checksum of every projection to the manifest's, which a refitted projection is then compared with."""
    try:
        manifest = read_manifest(folder)
    except CacheError:
        return
    for number, sha256 in enumerate(manifest.projections, start=1):
        path = projection_path(folder, number)
        if checksum_of(path) != sha256:
            is_whole = path.exists() and file_sha256(path) == sha256
            write_checksum(path, Checksum(sha256, Projection(path.read_bytes()).kernel.shape if is_whole else ()))


def _check_plan(manifest: Manifest, planned: dict[str, tuple[str, int]]) -> list[Fault]:
    """Checks that the manifest lists exactly the shards that follow from the index and the copies, with copies only of train."""

    def fault(shard: str, what: str) -> Fault:
        return {"shard": shard, "record": None, "what": what}

    faults = []
    listed = {entry.file: (entry.split, entry.copy_number) for entry in manifest.shards}
    faults += [fault(name, "missing from the manifest") for name in planned if name not in listed]
    for name, (split, copy) in listed.items():
        if split != "train" and copy:
            faults.append(fault(name, f"an augmented copy of {split}, which must be clean"))
        elif name not in planned:
            faults.append(fault(name, "the index has no photos for this shard"))
        elif planned[name] != (split, copy):
            faults.append(
                fault(
                    name, f"listed as copy {copy} of {split}, but it is copy {planned[name][1]} of {planned[name][0]}"
                )
            )
    counts = {
        split: sum(e.records for e in manifest.shards if (e.split, e.copy_number) == (split, 0)) for split in SPLITS
    }
    if counts != manifest.splits:
        faults.append(fault(MANIFEST, f"the splits are {manifest.splits}, but the shards have {counts}"))
    return faults


def _check_projections(folder: Path, manifest: Manifest) -> list[Fault]:
    """Faults for projections that are missing or differ from the manifest."""
    faults: list[Fault] = []
    for number, sha256 in enumerate(manifest.projections, start=1):
        path = projection_path(folder, number)
        if not path.exists():
            faults.append({"shard": path.name, "record": None, "what": "the file is missing"})
        elif path.is_dir():
            faults.append({"shard": path.name, "record": None, "what": IS_FOLDER})
        elif file_sha256(path) != sha256 or checksum_of(path) != sha256:
            faults.append({"shard": path.name, "record": None, "what": "the file differs from the manifest"})
    return faults


def _check(folder: Path, manifest: Manifest, entry: ShardEntry, rows: Any, labels: Any) -> Checked:
    shape, dtype = manifest.feature_shape, manifest.dtype

    def fault(what: str, record: int | None = None) -> Fault:
        return {"shard": entry.file, "record": record, "what": what}

    expected = shard_bytes(entry.records, shape, dtype)
    try:
        data: npt.NDArray[np.uint8] = np.memmap(folder / entry.file, np.uint8, "r").view(
            np.ndarray
        )  # slicing a memmap is slow
    except FileNotFoundError:
        return Checked([fault("the file is missing")], 0)
    except IsADirectoryError:
        return Checked([fault(IS_FOLDER)], 0)
    except ValueError:
        return Checked([fault(f"the file has 0 bytes, not {expected}")], 0)
    if len(rows) != entry.records:
        return Checked([fault(f"{entry.records} records in the manifest, but {len(rows)} in the index")], len(data))
    if len(data) != expected:
        return Checked([fault(f"the file has {len(data)} bytes, not {expected}")], len(data))
    faults = [fault(what, record) for record, what in find_faults(data, entry.records, shape, dtype)]
    if hashlib.sha256(data.data).hexdigest() != entry.sha256 and not faults:
        faults = [fault("the file differs from the manifest")]
    if faults:
        return Checked(faults, len(data))
    shard = parse_shard(data, entry.records, shape, dtype)
    faults += [fault("the photo differs from the index", int(n)) for n in np.flatnonzero(shard.images != rows)]
    faults += [fault("the label differs from the index", int(n)) for n in np.flatnonzero(shard.labels != labels[rows])]
    bits = shard.features.reshape(entry.records, -1).view(np.uint16 if dtype == "float16" else np.uint32)
    odd = sorted(_invalid_records(bits))
    faults += [fault(what, record) for record, what in odd]
    if not odd and entry.records > 1 and (bits[0] == bits[-1]).all() and (bits == bits[0]).all():
        faults.append(fault("all records are equal"))
    if (entry.split, entry.copy_number) != ("train", 0):
        return Checked(faults, len(data))
    same = np.logical_and.reduce([(chunk == bits[0]).all(0) for _, chunk in _chunks(bits)])
    return Checked(faults, len(data), (bits[0].copy(), same))


def _invalid_records(bits: Bits) -> Iterator[tuple[int, str]]:
    """The records with NaN or infinity, or with a single value throughout, as (record, what).

    Works on the bits (records, feature_dim), since numpy compares float16 slowly; all exponent bits set means NaN or infinity.
    """
    exponent = bits.dtype.type(0x7C00 if bits.dtype == np.uint16 else 0x7F800000)
    for start, chunk in _chunks(bits):
        infinite = (chunk & exponent).max(1) == exponent
        for number in np.flatnonzero(infinite).tolist():
            yield start + number, "NaN or infinity"
        alike = (chunk[:, 0] == chunk[:, -1]) & ~infinite & (bits.shape[1] > 1)
        for number in np.flatnonzero(alike).tolist():
            if (chunk[number] == chunk[number, 0]).all():
                yield start + number, "all features are equal"


def _chunks(bits: Bits) -> Iterator[tuple[int, Bits]]:
    """Consecutive records that fit in a core's own cache, with the number of the first."""
    step = max(1, CHUNK_BYTES // max(1, bits[:1].nbytes))
    for start in range(0, len(bits), step):
        yield start, bits[start : start + step]


def _count_constant(
    shards: Sequence[tuple[Bits, npt.NDArray[np.bool_]]],
) -> int | None:
    """How many features are equal in all records of all shards; None if there are no shards."""
    if not shards:
        return None
    first = shards[0][0]
    return int(np.logical_and.reduce([same & (record == first) for record, same in shards]).sum())


def _check_input(run: FeaturesRun, index: DatasetIndex) -> tuple[dict[str, float], list[Fault]]:
    """Statistics of the backbone's input over some training photos, and its faults."""
    rows = index.of_split("train").index.to_numpy()
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(np.int64))]
    crop = bool(getattr(run.dataset, "crop_to_bbox", False))
    photos = load_images(index, chosen.tolist(), image_size(run.features), crop, os.cpu_count() or 1)
    pixels = prepared(run.features, photos)
    low, high = input_range(run.features)
    found = {"min": pixels.min(), "max": pixels.max(), "mean": pixels.mean(), "std": pixels.std()}
    statistics = {name: round(float(value), 4) for name, value in found.items()}
    what = ""
    if not np.isfinite(pixels).all():
        what = "is not finite"
    elif statistics["std"] <= NARROW * (high - low):
        what = f"hardly varies (standard deviation {statistics['std']:g} in a range of {high - low:g})"
    elif statistics["min"] < low - 1e-3 or statistics["max"] > high + 1e-3:
        what = f"ranges from {statistics['min']:g} to {statistics['max']:g}, outside {low:g} to {high:g}"
    if not what:
        return statistics, []
    fault = {
        "shard": "",
        "record": None,
        "what": f"the backbone's input {what}; check `features.preprocessing` and the photos",
    }
    return statistics, [fault]
