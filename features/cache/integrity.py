"""Are a cache's files what was written? Every process looks once, when it first reads a file, and says nothing of sound ones.

Shards are judged by the checksum of every record (crc32c, which processors compute at 7 to 18 GB/s; sha256 at 0.4 to 2 GB/s
would be felt by a search), the small projections by their sha256. `features verify` compares every sha256, too.
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
"""A file as it is now: path, device, inode, size in bytes, and the time of its last change in nanoseconds."""

_sound: set[Identity] = set()
"""What this process has found sound. A file that was changed since is another one."""


def check_shards(files: Sequence[tuple[Path, int]], feature_shape: tuple[int, ...], dtype: str) -> None:
    """CacheError naming the first of these shards, given as (path, records), that is missing, cut short or damaged."""
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
            others = f"; so are {len(faults) - 1} others of {records}" if len(faults) > 1 else ""
            raise CacheError(
                f"the shard {path} is damaged (record {record}: {what}{others}). Run `headhunt features repair`, which computes "
                "it again."
            )
        _sound.add(identity)


def check_file(path: Path, sha256: str) -> None:
    """CacheError naming the file when it is missing, or when its sha256 (hex) is another one."""
    if path.exists():
        identity = _identity(path)
        if identity in _sound:
            return
        if file_sha256(path) == sha256:
            _sound.add(identity)
            return
    what = "damaged" if path.exists() else "missing"
    raise CacheError(f"{path} is {what}. Run `headhunt features repair`, which fits it again.")


def _faults(path: Path, records: int, feature_shape: tuple[int, ...], dtype: str) -> list[tuple[int, str]]:
    """What `find_faults` says of the whole file, read a few records at a time."""
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
