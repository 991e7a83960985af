from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from features.cache.shards import MappedFeatures, Shard, copy_shards, find_faults, read_shard, shard_bytes, write_shard
from features.runtime.errors import CacheError


def a_shard(records: int = 7, shape: tuple[int, ...] = (5,), dtype: str = "float16") -> Shard:
    random = np.random.default_rng(records)
    features = random.normal(size=(records, *shape)).astype(dtype)
    return Shard(features, np.arange(records) % 196, np.arange(records) * 1_000_003)


@pytest.mark.parametrize("shape", [(5,), (2048,), (3, 2, 4)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_shard_reads_back_as_written(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    written = a_shard(7, shape, dtype)
    write_shard(tmp_path / "s.tfrecord", written)
    read = read_shard(tmp_path / "s.tfrecord", 7, shape, dtype)
    for before, after in zip(written, read, strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)
    assert (tmp_path / "s.tfrecord").stat().st_size == shard_bytes(7, shape, dtype)
    assert find_faults(np.fromfile(tmp_path / "s.tfrecord", np.uint8), 7, shape, dtype) == []


def test_tensorflow_alone_reads_a_shard(tmp_path: Path) -> None:
    written = a_shard(6, (3, 4), "float32")
    write_shard(tmp_path / "s.tfrecord", written)
    fields = {
        "features": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "image": tf.io.FixedLenFeature([], tf.int64),
    }
    records = tf.data.TFRecordDataset(str(tmp_path / "s.tfrecord")).batch(6)
    example = tf.io.parse_example(next(iter(records)), fields)
    features = tf.reshape(tf.io.decode_raw(example["features"], tf.float32), (6, 3, 4))
    np.testing.assert_array_equal(features, written.features)
    np.testing.assert_array_equal(example["label"], written.labels)
    np.testing.assert_array_equal(example["image"], written.images)


def test_the_bytes_are_a_function_of_the_content(tmp_path: Path) -> None:
    write_shard(tmp_path / "a", a_shard())
    write_shard(tmp_path / "b", a_shard())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_flipped_bit_is_found_in_its_record(tmp_path: Path) -> None:
    path = tmp_path / "s.tfrecord"
    write_shard(path, a_shard())
    data = bytearray(path.read_bytes())
    length = len(data) // 7
    data[3 * length + length // 2] ^= 1
    data[5 * length] ^= 1
    path.write_bytes(data)
    assert find_faults(np.fromfile(path, np.uint8), 7, (5,), "float16") == [
        (3, "the checksum does not match the data"),
        (5, "the record's length is wrong"),
    ]


def test_a_shard_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.tfrecord"
    write_shard(path, a_shard())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CacheError, match=r"s\.tfrecord has \d+ bytes, not \d+\. Run `headhunt features repair`"):
        read_shard(path, 7, (5,), "float16")
    path.unlink()
    with pytest.raises(CacheError, match="is missing"):
        read_shard(path, 7, (5,), "float16")


def test_a_number_that_does_not_fit_a_record_is_refused(tmp_path: Path) -> None:
    shard = a_shard()
    with pytest.raises(ValueError, match="0 <= value < 2\\*\\*35 must hold, but got -1"):
        write_shard(tmp_path / "s", shard._replace(labels=shard.labels - 1))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("asked", ["float16", "float32"])
def test_shards_are_copied_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    """With a buffer of two records, so that a file is read in several pieces."""
    monkeypatch.setattr("features.cache.shards.BUFFER_BYTES", 2 * 12 * np.dtype(asked).itemsize)
    written = [a_shard(records, (3, 4)) for records in (7, 1, 4)]
    files = [(tmp_path / f"{number}.tfrecord", len(shard.labels)) for number, shard in enumerate(written)]
    for (path, _), shard in zip(files, written, strict=True):
        write_shard(path, shard)
    features, labels = copy_shards(files, (3, 4), "float16", asked)
    assert features.dtype == asked
    np.testing.assert_array_equal(features, np.concatenate([shard.features for shard in written]))
    np.testing.assert_array_equal(labels, np.concatenate([shard.labels for shard in written]))
    files[1][0].write_bytes(b"")
    with pytest.raises(CacheError, match=r"1\.tfrecord has 0 bytes"):
        copy_shards(files, (3, 4), "float16", asked)


def test_mapped_features_are_indexed_like_an_array() -> None:
    pieces = [a_shard(records, (3,)).features for records in (4, 1, 5)]
    mapped, whole = MappedFeatures(pieces), np.concatenate(pieces)
    assert (mapped.shape, mapped.dtype, len(mapped)) == (whole.shape, whole.dtype, 10)
    for rows in (0, -1, slice(2, 9, 3), [7, 0, 4, 7], np.array([], int), np.arange(10) % 2 == 0):
        np.testing.assert_array_equal(mapped[rows], whole[rows])
    np.testing.assert_array_equal(np.asarray(mapped), whole)
    with pytest.raises(IndexError):
        mapped[10]


def test_every_finite_half_is_cast_exactly(tmp_path: Path) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 1024)
    write_shard(tmp_path / "s", Shard(halves, np.zeros(len(halves), int), np.zeros(len(halves), int)))
    singles, _ = copy_shards([(tmp_path / "s", len(halves))], (1024,), "float16", np.float32)
    np.testing.assert_array_equal(singles.view(np.uint32), halves.astype(np.float32).view(np.uint32))
