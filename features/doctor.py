"""`features verify` and `features repair`: is every cached number what the manifest and the index say?"""

from __future__ import annotations

from typing import Any

import numpy as np

from features.build import build_cache, discard_shard, file_sha256, plan_blocks
from features.cache import FeatureCache, ShardEntry, cache_folder, cache_key, key_parts, split_copies
from features.config import FeaturesRun
from features.dataset import load_index
from features.errors import CacheError
from features.shards import find_faults, read_shard

Fault = dict[str, Any]


def verify(run: FeaturesRun) -> dict[str, Any]:
    """Reads every byte of the cache; the `--json` object of `features verify`: {"ok", "faults": [{"shard", "record", "what"}]}.

    Checked: files and lengths, sha256 and every record's checksum, image ids and labels against the index, NaN and infinity,
    and records that are all alike. Raises CacheError when there is no cache.
    """
    index = load_index(run)
    cache = FeatureCache.open(cache_folder(run, cache_key(key_parts(run, index))))
    blocks = plan_blocks(index, run.features.images_per_shard)
    rows = {
        block.file(entry.copy_number): block.rows
        for block in blocks
        for entry in cache.manifest.shards
        if entry.split == block.split
    }
    labels = index.table["label"].to_numpy(np.int64)
    listed = {entry.file for entry in cache.manifest.shards}
    faults: list[Fault] = [
        {"shard": name, "record": None, "what": "missing from the manifest"}
        for block in blocks
        for split, copy in split_copies(cache.copies)
        if split == block.split and (name := block.file(copy)) not in listed
    ]
    for entry in cache.manifest.shards:
        faults += _check(cache, entry, np.asarray(rows.get(entry.file, ()), np.int64), labels)
    return {"ok": not faults, "faults": faults}


def repair(run: FeaturesRun) -> dict[str, Any]:
    """Computes the damaged shards anew and leaves the others alone; the `--json` object of `features cache`, with `repaired`."""
    faults = verify(run)["faults"]
    damaged = sorted({fault["shard"] for fault in faults})
    index = load_index(run)
    folder = cache_folder(run, cache_key(key_parts(run, index)))
    for shard in damaged:
        discard_shard(folder / shard)
    return {**build_cache(run), "repaired": damaged}


def _check(cache: FeatureCache, entry: ShardEntry, rows: Any, labels: Any) -> list[Fault]:
    manifest, path = cache.manifest, cache.folder / entry.file

    def fault(what: str, record: int | None = None) -> Fault:
        return {"shard": entry.file, "record": record, "what": what}

    if len(rows) != entry.records:
        return [fault(f"the manifest says {entry.records} records, the index {len(rows)}")]
    try:
        shard = read_shard(path, entry.records, manifest.feature_shape, manifest.dtype)
    except CacheError as error:
        return [fault(str(error).partition(". Run")[0])]
    if file_sha256(path) != entry.sha256:
        broken = find_faults(path, entry.records, manifest.feature_shape, manifest.dtype)
        return [fault(what, record) for record, what in broken] or [fault("the file is not the one in the manifest")]
    faults = [fault("another image than the index says", int(n)) for n in np.flatnonzero(shard.images != rows)]
    faults += [fault("another label than the index says", int(n)) for n in np.flatnonzero(shard.labels != labels[rows])]
    flat = np.asarray(shard.features, np.float32).reshape(entry.records, -1)
    faults += [fault("NaN or infinity", int(n)) for n in np.flatnonzero(~np.isfinite(flat).all(1))]
    if entry.records > 1 and (flat == flat[0]).all():
        faults.append(fault("all records are alike"))
    return faults
