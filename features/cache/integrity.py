"""Checks that a cache's files are undamaged. Each process checks a file once, when it first reads it.

Shards are checked by the crc32c of every record (7 to 18 GB/s on a CPU; sha256, at 0.4 to 2 GB/s, would slow down a search), the
small projections by their sha256. `features verify` also compares every sha256.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from features.cache.shards import BUFFER_BYTES, MOST_THREADS, check_length, find_faults, read_rows, shard_bytes
from features.runtime.atomic import file_sha256
from features.runtime.errors import CacheError

Identity = tuple[str, int, int, int, int]
"""The current state of a file: path, device, inode, size in bytes, and modification time in nanoseconds."""

_sound: set[Identity] = set()
"""Files that passed the check in this process. A changed file has another identity, so it is checked again."""


def check_shards(files: Sequence[tuple[Path, int]], feature_shape: tuple[int, ...], dtype: str) -> None:
    """Raises CacheError naming the first of these shards, given as (path, records), that is missing, truncated or damaged."""
    unknown = []
    for path, records in files:
        check_length(path, shard_bytes(records, feature_shape, dtype))
        identity = _identity(path)
        if identity not in _sound:
            unknown.append((path, records, identity))
    if not unknown:
        return
    with ThreadPoolExecutor(min(len(unknown), os.cpu_count() or 1, MOST_THREADS)) as pool:
        found = list(pool.map(lambda each: _faults(each[0], each[1], feature_shape, dtype), unknown))
    for (path, records, identity), faults in zip(unknown, found, strict=True):
        if faults:
            record, what = faults[0]
            others = f", and {len(faults) - 1} more of {records} records" if len(faults) > 1 else ""
            raise CacheError(
                f"the shard {path} is damaged (record {record}: {what}{others}). Run `headhunt features repair` to recompute it."
            )
        _sound.add(identity)


def check_file(path: Path, sha256: str) -> None:
    """Raises CacheError naming the file when it is missing or its sha256 (hex) differs."""
    if path.exists():
        identity = _identity(path)
        if identity in _sound:
            return
        if file_sha256(path) == sha256:
            _sound.add(identity)
            return
    what = "damaged" if path.exists() else "missing"
    raise CacheError(f"{path} is {what}. Run `headhunt features repair` to refit it.")


def _faults(path: Path, records: int, feature_shape: tuple[int, ...], dtype: str) -> list[tuple[int, str]]:
    """The result of `find_faults` for the whole file, read a few records at a time."""
    size = shard_bytes(1, feature_shape, dtype)
    step = max(1, BUFFER_BYTES // size)
    buffer, faults = np.empty((min(step, records), size), np.uint8), []
    for start in range(0, records, step):
        rows = buffer[: min(step, records - start)]
        read_rows(path, start * size, rows)
        faults += [(start + record, what) for record, what in find_faults(rows, len(rows), feature_shape, dtype)]
    return faults


def _identity(path: Path) -> Identity:
    found = path.stat()
    return str(path.absolute()), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
