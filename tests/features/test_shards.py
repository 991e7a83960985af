from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from features.errors import CacheError
from features.shards import Shard, find_faults, read_shard, shard_bytes, write_shard


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
    assert find_faults(tmp_path / "s.tfrecord", 7, shape, dtype) == []


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
    assert find_faults(path, 7, (5,), "float16") == [
        (3, "the checksum does not fit the data"),
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
