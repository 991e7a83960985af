"""Any damage to a cache's file is found when it is first read; an intact file is checked only once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.building.build import build_cache
from features.cache.feature_cache import FeatureCache, cache_for
from features.cache.integrity import check_shards
from features.cache.projections import projection_path
from features.cache.shards import Shard, shard_bytes, write_shard
from features.config import FeaturesRun
from features.runtime.errors import CacheError

MakeRun = Callable[..., FeaturesRun]

READS: dict[str, Callable[[FeatureCache], object]] = {
    "arrays": lambda cache: cache.arrays("train"),
    "mapped": lambda cache: cache.mapped("train"),
    "labels": lambda cache: cache.labels("train"),
    "images": lambda cache: cache.images("train"),
    "epoch": lambda cache: cache.epoch(0),
    "batches": lambda cache: cache.batches("train"),
}


def flip(path: Path, place: int) -> None:
    """Changes one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("read", READS)
def test_a_flipped_bit_is_named_by_whatever_reads_the_shard(cached_run: FeaturesRun, read: str) -> None:
    cache = cache_for(cached_run)
    size = shard_bytes(1, cache.feature_shape, cache.manifest.dtype)
    for name in ("train-c000-00001-of-00003.tfrecord", "train-c001-00001-of-00003.tfrecord"):
        flip(cache.folder / name, 3 * size - 6)  # the last feature of record 2
    said = (
        r"the shard .*/train-c00[01]-00001-of-00003\.tfrecord is damaged \(record 2: the checksum does not match the data\)\. "
        r"Run `headhunt features repair` to recompute it\.$"
    )
    with pytest.raises(CacheError, match=said):
        READS[read](cache)
    assert cache.arrays("val")[0].shape == (5, 6)  # other shards are intact


def test_every_part_of_a_record_is_looked_at(tmp_path: Path) -> None:
    """Its length and that one's checksum, label, image, features, and their checksum: each bit of each byte."""
    path, size = tmp_path / "s.tfrecord", shard_bytes(1, (3,), "float16")
    features = np.arange(12, dtype=np.float16).reshape(4, 3)
    write_shard(path, Shard(features, np.arange(4), np.arange(4)))
    check_shards([(path, 4)], (3,), "float16")
    sound = path.read_bytes()
    for place in range(size):
        for bit in range(8):
            data = bytearray(sound)
            data[size + place] ^= 1 << bit
            path.write_bytes(data)
            with pytest.raises(CacheError, match=r"s\.tfrecord is damaged \(record 1: "):
                check_shards([(path, 4)], (3,), "float16")
    path.write_bytes(sound)
    check_shards([(path, 4)], (3,), "float16")


def test_many_damaged_records_are_one_message(tmp_path: Path) -> None:
    path, size = tmp_path / "s.tfrecord", shard_bytes(1, (3,), "float16")
    write_shard(path, Shard(np.ones((4, 3), np.float16), np.arange(4), np.arange(4)))
    flip(path, 2)
    flip(path, 3 * size - 1)
    said = r"is damaged \(record 0: the record's length is wrong, and 1 more of 4 records\)"
    with pytest.raises(CacheError, match=said):
        check_shards([(path, 4)], (3,), "float16")


def test_a_damaged_or_lost_projection_beside_the_shards_is_named(make_run: MakeRun) -> None:
    run = make_run(pooling="avg+covariance:3")
    build_cache(run)
    cache = cache_for(run)
    path = projection_path(cache.folder, 1)
    sound = path.read_bytes()
    flip(path, len(sound) - 3)
    with pytest.raises(CacheError, match=r"projection-1\.npy is damaged\. Run `headhunt features repair` to refit it"):
        cache.arrays("train")
    path.unlink()
    with pytest.raises(CacheError, match=r"projection-1\.npy is missing\. Run `headhunt features repair`"):
        cache.mapped("val")
    path.write_bytes(sound)
    cache.arrays("train")


def test_a_sound_shard_is_looked_at_once(cached_run: FeaturesRun) -> None:
    """Unless it is written: its modification time tells."""
    cache = cache_for(cached_run)
    before, _ = cache.arrays("train")
    path = cache.folder / "train-c000-00000-of-00003.tfrecord"
    found = path.stat()
    flip(path, found.st_size - 6)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert (cache.arrays("train")[0] != before).any()
    path.touch()
    with pytest.raises(CacheError, match=r"train-c000-00000-of-00003\.tfrecord is damaged"):
        cache.arrays("train")
