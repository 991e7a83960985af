"""The TFRecord layout of a shard: plain `tf.train.Example`s of equal length, read by mapping the file.

Each record is an Example with `features` (the array's bytes, C order, little endian), `label` (int64) and `image` (int64, the row
of the index). The two integers are written as varints of fixed length (padded with continuation bits, which every protobuf reader
accepts), so all records of a shard have equal length and the file maps to one strided array without parsing.

TFRecord framing: 8-byte length, masked crc32c of the length, payload, masked crc32c of the payload.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.runtime.atomic import atomic_path
from features.runtime.errors import CacheError

VARINT = 5
"""Bytes of a label or a photo id: values below 2**35."""

HEADER = 12
FOOTER = 4

CRC_MASK = 0xA282EAD8
"""TFRecord's constant, added to a rotated crc32c."""

BUFFER_BYTES = 4 << 20
"""Bytes of the result copied at a time; small enough for the CPU cache."""

MOST_THREADS = 8
"""Most threads that copy: beyond this, memory bandwidth is the limit."""


class Shard(NamedTuple):
    """The contents of a shard: features (records, *feature_shape) in the stored dtype, labels and images (records,) int64."""

    features: npt.NDArray[np.floating]
    labels: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]


def _varint(value: int, size: int = VARINT) -> bytes:
    if not 0 <= value < 1 << (7 * size):
        raise ValueError(f"0 <= value < 2**{7 * size} must hold, but got {value}")
    digits = [(value >> (7 * place)) & 0x7F for place in range(size)]
    return bytes([*(digit | 0x80 for digit in digits[:-1]), digits[-1]])


def _bytes_field(number: int, content: bytes) -> bytes:
    """A length-delimited field with a minimal length prefix, which is the same in every record."""
    size = max(1, -(-len(content).bit_length() // 7))
    return bytes([number << 3 | 2]) + _varint(len(content), size) + content


class Layout(NamedTuple):
    """The bytes of an empty record, and the offsets of its fields."""

    record: npt.NDArray[np.uint8]
    features: int
    label: int
    image: int


@lru_cache(maxsize=8)
def _layout(feature_bytes: int) -> Layout:
    """The layout of records with this many bytes of features; offsets are found by placeholder values in the record."""

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


def _masked_crc(data: bytes | npt.NDArray[np.uint8]) -> int:
    import google_crc32c

    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + CRC_MASK) & 0xFFFFFFFF


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
        crc = _masked_crc(row[HEADER:-FOOTER])
        row[-FOOTER:] = np.frombuffer(crc.to_bytes(4, "little"), np.uint8)
    with atomic_path(path) as temporary:
        records.tofile(temporary)


def shard_bytes(records: int, feature_shape: tuple[int, ...], dtype: str) -> int:
    """The size of a shard's file in bytes."""
    return records * len(_layout(_feature_bytes(feature_shape, dtype)).record)


def read_shard(path: Path, records: int, feature_shape: tuple[int, ...], dtype: str) -> Shard:
    """Maps a shard: the features are a view of the file, without parsing or copying.

    Raises CacheError when the file is missing or has another length; `features.cache.integrity` checks its checksums.
    """
    size = shard_bytes(records, feature_shape, dtype)
    check_length(path, size)
    data = np.memmap(path, np.uint8, "r", shape=(size,)).view(np.ndarray)  # slicing a memmap is slow
    return parse_shard(data, records, feature_shape, dtype)


def parse_shard(data: npt.NDArray[np.uint8], records: int, feature_shape: tuple[int, ...], dtype: str) -> Shard:
    """A shard from its file's bytes, which must have the right length; the features are a view of them."""
    layout = _layout(_feature_bytes(feature_shape, dtype))
    rows = data.reshape(records, len(layout.record))
    features = _features(rows, layout, feature_shape, dtype)
    return Shard(features, _read_varints(rows, layout.label), _read_varints(rows, layout.image))


def _features(
    rows: npt.NDArray[np.uint8], layout: Layout, feature_shape: tuple[int, ...], dtype: str
) -> npt.NDArray[np.floating]:
    item = np.dtype(dtype)
    strides = (rows.strides[0], *np.empty(feature_shape, item).strides)
    return np.ndarray((len(rows), *feature_shape), item, buffer=rows, offset=layout.features, strides=strides)


def check_length(path: Path, expected: int) -> None:
    """Raises CacheError when a shard is missing or its length is not `expected` bytes."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise CacheError(f"the shard {path} is missing. Run `headhunt features repair`.") from None
    if size != expected:
        raise CacheError(f"the shard {path} has {size} bytes, not {expected}. Run `headhunt features repair`.")


def copy_shards(
    files: Sequence[tuple[Path, int]], feature_shape: tuple[int, ...], stored: str, dtype: npt.DTypeLike
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]:
    """The concatenated features (n, *feature_shape) in `dtype` and labels (n,) int64 of shards, given as (path, records).

    Threads share the files; each reads a few records at a time into a buffer that fits in the CPU cache, and copies from there.
    The buffer is large enough that threads rarely contend for the GIL. Raises CacheError like `read_shard`.
    """
    feature_bytes = _feature_bytes(feature_shape, stored)
    layout = _layout(feature_bytes)
    size = len(layout.record)
    for path, records in files:
        check_length(path, records * size)
    counts = [records for _, records in files]
    features = np.empty((sum(counts), *feature_shape), dtype)
    labels = np.empty(len(features), np.int64)
    capacity = max(1, BUFFER_BYTES // (features[:1].nbytes or 1))
    pieces = list(_pieces(files, capacity))
    threads = min(len(pieces), os.cpu_count() or 1, MOST_THREADS)

    def copy(first: int) -> None:
        buffer = np.empty((min(capacity, max(counts, default=0) * len(files)), size), np.uint8)
        for start, parts in pieces[first::threads]:
            filled = 0
            for path, skipped, records in parts:
                read_rows(path, skipped * size, buffer[filled : filled + records])
                filled += records
            rows, place = buffer[:filled], slice(start, start + filled)
            _cast(_features(rows, layout, feature_shape, stored), features[place])
            labels[place] = _read_varints(rows, layout.label)

    if threads:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(copy, range(threads)))
    return features, labels


Piece = tuple[int, list[tuple[Path, int, int]]]
"""The start of a piece in the result, and its sources: (path, records skipped, records)."""


def _pieces(files: Sequence[tuple[Path, int]], capacity: int) -> Iterator[Piece]:
    """Cuts the concatenated records of the files into pieces of `capacity` records; the last may be smaller."""
    start = filled = 0
    parts: list[tuple[Path, int, int]] = []
    for path, records in files:
        skipped = 0
        while skipped < records:
            taken = min(records - skipped, capacity - filled)
            parts.append((path, skipped, taken))
            skipped, filled = skipped + taken, filled + taken
            if filled == capacity:
                yield start, parts
                start, filled, parts = start + filled, 0, []
    if parts:
        yield start, parts


def read_rows(path: Path, offset: int, rows: npt.NDArray[np.uint8]) -> None:
    """Reads from a file until the rows are full; a single read may return less."""
    view = rows.data.cast("B")
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while len(view):
            count = file.readinto(view)
            if not count:
                raise CacheError(f"the shard {path} was truncated during reading. Run `headhunt features repair`.")
            view = view[count:]


def _cast(stored: npt.NDArray[np.floating], into: npt.NDArray[np.floating]) -> None:
    """Copies features to another dtype; float16 to float32 several times faster than numpy, and exact for finite values.

    The exponent and mantissa bits of a half, shifted to those of a single, give its value up to the difference of the exponent
    biases, 127 - 15.
    """
    if stored.dtype != np.float16 or into.dtype != np.float32:
        into[...] = stored
        return
    bits = into.view(np.int32)
    bits[...] = stored.view(np.int16)  # sign extension fills the upper half
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(-0x70002000), out=bits)  # keep one sign bit, the exponent and the mantissa
    np.multiply(into, np.float32(2.0 ** (127 - 15)), out=into)


class MappedFeatures:
    """Features (n, *feature_shape) that stay in their shard files; indexing reads the indexed rows."""

    def __init__(self, shards: Sequence[npt.NDArray[np.floating]]) -> None:
        self._shards = shards
        self._starts = np.cumsum([0, *map(len, shards)])
        self.dtype = shards[0].dtype
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *shards[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"MappedFeatures(shape={self.shape}, dtype={self.dtype}, shards={len(self._shards)})"

    def __getitem__(self, rows: Any) -> npt.NDArray[np.floating]:
        """One photo's features for an int, otherwise (len(rows), *feature_shape). Raises IndexError for a row out of range."""
        wanted = np.arange(len(self))[rows]
        flat = np.atleast_1d(wanted)
        holders = np.searchsorted(self._starts, flat, side="right") - 1
        found = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for holder in np.unique(holders):
            chosen = holders == holder
            found[chosen] = self._shards[holder][flat[chosen] - self._starts[holder]]
        return found if wanted.ndim else found[0]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("mapped features are in several files, so an array of them must be a copy")
        return np.asarray(self[:], dtype)


def find_faults(
    data: npt.NDArray[np.uint8], records: int, feature_shape: tuple[int, ...], dtype: str
) -> list[tuple[int, str]]:
    """The records with wrong framing or checksum, as (record, what); `data` are the bytes of a file of the right length."""
    from google_crc32c import value as crc32c

    layout = _layout(_feature_bytes(feature_shape, dtype))
    rows = data.reshape(records, len(layout.record))
    framing = (rows[:, :HEADER] != layout.record[:HEADER]).any(1)
    stored = np.ascontiguousarray(rows[:, -FOOTER:]).view("<u4")[:, 0]
    crcs = np.fromiter((crc32c(payload) for payload in rows[:, HEADER:-FOOTER]), np.uint32, records)
    wrong = ((crcs >> 15 | crcs << 17) + np.uint32(CRC_MASK) != stored) & ~framing
    faults = [(int(number), "the record's length is wrong") for number in np.flatnonzero(framing)]
    faults += [(int(number), "the checksum does not match the data") for number in np.flatnonzero(wrong)]
    return sorted(faults)


def _feature_bytes(feature_shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(feature_shape)) * np.dtype(dtype).itemsize


def _read_varints(rows: npt.NDArray[np.uint8], offset: int) -> npt.NDArray[np.int64]:
    digits = rows[:, offset : offset + VARINT].astype(np.int64) & 0x7F
    return digits @ (np.int64(1) << (7 * np.arange(VARINT, dtype=np.int64)))
