"""The TFRecord layout of a shard: plain `tf.train.Example`s of equal length, read by mapping the file.

Each record is an Example of `features` (the array's bytes, C order, little endian), `label` (int64) and `image` (int64, the row
of the index). Integers are written as varints of fixed length (padded with continuation bits, which every protobuf reader
accepts), so all records of a shard are equally long and the file maps to one strided array without parsing.

TFRecord framing: 8-byte length, masked crc32c of it, payload, masked crc32c of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.atomic import atomic_path
from features.errors import CacheError

VARINT = 5
"""Bytes of every integer in a record: values below 2**35."""

HEADER = 12
FOOTER = 4


class Shard(NamedTuple):
    """What a shard holds: features (records, *feature_shape) in the stored dtype, labels and images (records,) int64."""

    features: npt.NDArray[np.floating]
    labels: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]


def _varint(value: int) -> bytes:
    if not 0 <= value < 1 << (7 * VARINT):
        raise ValueError(f"0 <= value < 2**{7 * VARINT} must hold, but got {value}")
    digits = [(value >> (7 * place)) & 0x7F for place in range(VARINT)]
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


def _bytes_field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


class Layout(NamedTuple):
    """Where the parts of a record stand: the whole record's bytes, and offsets into it."""

    record: npt.NDArray[np.uint8]
    features: int
    label: int
    image: int


def _layout(feature_bytes: int) -> Layout:
    """A record of zeros: fields are found by placeholders that are cleared afterwards."""

    def entry(name: bytes, feature: bytes) -> bytes:
        return _bytes_field(1, _bytes_field(1, name) + _bytes_field(2, feature))

    def integer(value: int) -> bytes:
        return _bytes_field(3, _bytes_field(1, _varint(value)))

    label, image = 0x2AAAAAAAA, 0x155555555
    body = entry(b"label", integer(label)) + entry(b"image", integer(image))
    body += entry(b"features", _bytes_field(1, _bytes_field(1, bytes(feature_bytes))))
    payload = _bytes_field(1, body)
    whole = bytearray(HEADER + len(payload) + FOOTER)
    whole[:8] = len(payload).to_bytes(8, "little")
    whole[8:HEADER] = _masked_crc(bytes(whole[:8])).to_bytes(4, "little")
    whole[HEADER:-FOOTER] = payload
    record = np.frombuffer(bytes(whole), np.uint8)
    return Layout(record, len(whole) - FOOTER - feature_bytes, whole.index(_varint(label)), whole.index(_varint(image)))


def _masked_crc(data: bytes) -> int:
    import google_crc32c

    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_shard(path: Path, shard: Shard) -> None:
    """Writes a shard atomically; the bytes are a pure function of its content."""
    features = np.ascontiguousarray(shard.features)
    count, feature_bytes = len(features), features[:1].nbytes
    layout = _layout(feature_bytes)
    records = np.tile(layout.record, (count, 1))
    records[:, layout.features : layout.features + feature_bytes] = features.reshape(count, -1).view(np.uint8)
    for offset, values in ((layout.label, shard.labels), (layout.image, shard.images)):
        for row, value in zip(records, values.tolist(), strict=True):
            row[offset : offset + VARINT] = np.frombuffer(_varint(value), np.uint8)
    for row in records:
        crc = _masked_crc(row[HEADER:-FOOTER].tobytes())
        row[-FOOTER:] = np.frombuffer(crc.to_bytes(4, "little"), np.uint8)
    with atomic_path(path) as temporary:
        records.tofile(temporary)


def shard_bytes(records: int, feature_shape: tuple[int, ...], dtype: str) -> int:
    """The size of a shard's file in bytes."""
    return records * len(_layout(_feature_bytes(feature_shape, dtype)).record)


def read_shard(path: Path, records: int, feature_shape: tuple[int, ...], dtype: str) -> Shard:
    """Maps a shard: the features are a view of the file, nothing is parsed or copied.

    Raises CacheError when the file is missing or of another length; checksums are `find_faults`' work.
    """
    feature_bytes = _feature_bytes(feature_shape, dtype)
    layout = _layout(feature_bytes)
    expected = records * len(layout.record)
    if not path.exists():
        raise CacheError(f"the shard {path} is missing. Run `headhunt features repair`.")
    if path.stat().st_size != expected:
        raise CacheError(
            f"the shard {path} has {path.stat().st_size} bytes, not {expected}. Run `headhunt features repair`."
        )
    rows = np.memmap(path, np.uint8, "r", shape=(records, len(layout.record)))
    item = np.dtype(dtype)
    features = np.ndarray(
        (records, *feature_shape),
        item,
        buffer=rows,
        offset=layout.features,
        strides=(rows.strides[0], *np.empty(feature_shape, item).strides),
    )
    return Shard(features, _read_varints(rows, layout.label), _read_varints(rows, layout.image))


def find_faults(path: Path, records: int, feature_shape: tuple[int, ...], dtype: str) -> list[tuple[int, str]]:
    """The records whose framing or checksum is wrong, as (record, what)."""
    layout = _layout(_feature_bytes(feature_shape, dtype))
    rows = np.memmap(path, np.uint8, "r", shape=(records, len(layout.record)))
    faults = []
    for number, row in enumerate(rows):
        if row[:HEADER].tobytes() != layout.record[:HEADER].tobytes():
            faults.append((number, "the record's length is wrong"))
        elif _masked_crc(row[HEADER:-FOOTER].tobytes()) != int.from_bytes(row[-FOOTER:].tobytes(), "little"):
            faults.append((number, "the checksum does not fit the data"))
    return faults


def _feature_bytes(feature_shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(feature_shape)) * np.dtype(dtype).itemsize


def _read_varints(rows: npt.NDArray[np.uint8], offset: int) -> npt.NDArray[np.int64]:
    digits = rows[:, offset : offset + VARINT].astype(np.int64) & 0x7F
    return digits @ (np.int64(1) << (7 * np.arange(VARINT, dtype=np.int64)))
