"""Photos with 16-bit pixels: scaled by the bits that they hold, with and without colours and transparency."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from features.config import FeaturesRun
from features.dataset.images import inspect_image, open_photo
from features.dataset.prepare import prepare
from features.runtime.errors import DatasetError
from features.runtime.log import log
from tests.features.test_images import write_png

pytestmark = pytest.mark.unit

Values = npt.NDArray[np.uint16]

BANDS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Channels of each colour type of PNG; 4 and 6 have alpha."""


def ramp(bits: int, channels: int = 1) -> Values:
    """12 × 20 pixels from black to this many bits' white, different in each channel."""
    values = np.linspace(0, (1 << bits) - 1, 240 * channels).round().astype(np.uint16)
    return values.reshape(12, 20, channels)


def deep_png(path: Path, kind: int, colours: Values, alpha: int = 65535) -> None:
    bands = np.full((*colours.shape[:2], BANDS[kind]), alpha, ">u2")
    bands[..., : colours.shape[2]] = colours
    size = (colours.shape[1], colours.shape[0])
    write_png(path, size, 16, kind, (b"\0" + line.tobytes() for line in bands))


def deep_tiff(path: Path, order: str, compression: int, colours: Values, orientation: int) -> None:
    """By TIFF 6.0: RGB, one strip, in this byte order, uncompressed (1) or deflated (8)."""
    pixels = colours.astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if compression == 8 else pixels
    pixels += bytes(len(pixels) % 2)
    height, width = colours.shape[:2]
    tags = [
        (256, 3, width),
        (257, 3, height),
        (259, 3, compression),
        (262, 3, 2),
        (274, 3, orientation),
        (277, 3, 3),
        (278, 3, height),
    ]
    place = 8 + len(pixels)
    entries = [struct.pack(f"{order}HHLHH", tag, kind, 1, value, 0) for tag, kind, value in tags]
    entries += [
        struct.pack(f"{order}HHLL", 258, 3, 3, place),
        struct.pack(f"{order}HHLL", 273, 4, 1, 8),
        struct.pack(f"{order}HHLL", 279, 4, 1, len(pixels)),
    ]
    entries.sort(key=lambda entry: struct.unpack(f"{order}H", entry[:2]))
    path.write_bytes(
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(f"{order}L", place + 6)
        + pixels
        + struct.pack(f"{order}3H", 16, 16, 16)
        + struct.pack(f"{order}H", len(entries))
        + b"".join(entries)
        + bytes(4)
    )


def difference(path: Path, colours: Values, white: int) -> float:
    """The largest difference between a photo's pixels and its values as shares of white."""
    return float(np.abs(np.asarray(open_photo(path)) - colours / white * 255).max())


@pytest.mark.parametrize("kind", BANDS)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_pixels_are_scaled_by_the_bits_that_they_hold_whatever_their_alpha(
    tmp_path: Path, bits: int, kind: int
) -> None:
    colours = ramp(bits, 3 if kind in (2, 6) else 1)
    for alpha in (65535, 4095, 0):
        deep_png(tmp_path / "photo.png", kind, colours, alpha)
        assert difference(tmp_path / "photo.png", colours, (1 << bits) - 1) <= 1
        found = inspect_image(tmp_path / "photo.png", 10**8, {})
        assert (found.fault, found.held_bits) == (None, bits if bits < 16 else None)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("bits", [10, 14, 16])
def test_colours_of_a_tiff(tmp_path: Path, bits: int, compression: int, order: str) -> None:
    colours = ramp(bits, 3)
    path = tmp_path / "photo.tif"
    deep_tiff(path, order, compression, colours, 3)  # its row 0 is at the bottom, column 0 at the right
    assert difference(path, colours[::-1, ::-1], (1 << bits) - 1) <= 1
    assert inspect_image(path, 10**8, {}).held_bits == (bits if bits < 16 else None)


def test_a_black_photo_is_black_and_no_bits_are_told(tmp_path: Path) -> None:
    deep_png(tmp_path / "photo.png", 0, np.zeros((12, 20, 1), np.uint16))
    assert inspect_image(tmp_path / "photo.png", 10**8, {}).held_bits is None
    assert np.asarray(open_photo(tmp_path / "photo.png")).max() == 0


def test_the_bits_of_each_photo_are_told_each_time(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for number, (bits, kind) in enumerate([(10, 0), (12, 2), (12, 4), (14, 6), (16, 0), (16, 2)]):
        (root / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        deep_png(root / "ab"[number % 2] / f"{number}.png", kind, ramp(bits, 3 if kind in (2, 6) else 1))
    section: dict[str, Any] = {"kind": "folder", "root": str(root)}
    run = FeaturesRun.model_validate({"workdir": str(tmp_path / "run"), "dataset": section})
    for _ in ("new", "known"):
        with log.capture() as captured:
            prepare(run)
        assert " ".join(captured.get().split()) == (
            "Read as 10-bit, because all their 16-bit values are below 1024: 1 of 6 photos, a/0.png. "
            "Read as 12-bit, because all their 16-bit values are below 4096: 2 of 6 photos, a/2.png, b/1.png. "
            "Read as 14-bit, because all their 16-bit values are below 16384: 1 of 6 photos, b/3.png."
        )


@pytest.mark.parametrize(
    ("header", "planes_first"),
    [
        (struct.pack(">HBBHHHH", 474, 0, 2, 3, 20, 12, 3).ljust(512, b"\0"), True),  # SGI: 16 bits, uncompressed
        (b"P6 20 12 65535\n", False),
    ],
)
def test_dark_colours_of_formats_whose_low_bytes_cannot_be_read_are_refused(
    tmp_path: Path, header: bytes, planes_first: bool
) -> None:
    path = tmp_path / "photo.sgi"
    for bits, fault in ((16, None), (12, "not a readable image (12-bit colours in 16-bit channels,")):
        colours = ramp(bits, 3)
        path.write_bytes(header + (colours.transpose(2, 0, 1) if planes_first else colours).astype(">u2").tobytes())
        found = inspect_image(path, 10**8, {}).fault
        assert found == fault if fault is None else (found or "").startswith(fault)
    with pytest.raises(DatasetError, match="convert it to 8 bits"):
        open_photo(path)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("bits", "white", "told"),
    [(10, 1023, None), (12, 4095, None), (9, 4095, None), (16, 65535, None), (12, 65535, 12), (16, 40000, None)],
)
def test_a_pgm_is_scaled_by_the_white_that_it_states_or_by_its_bits(
    tmp_path: Path, bits: int, white: int, told: int | None, plain: bool
) -> None:
    """netpbm's pgm(5): P5 has two bytes for each value, the high one first; P2 has text."""
    colours = np.minimum(ramp(bits), np.uint16(white))
    header = f"{'P2' if plain else 'P5'} 20 12 {white}\n".encode()
    path = tmp_path / "photo.pgm"
    values = " ".join(map(str, colours.ravel())).encode() if plain else colours.astype(">u2").tobytes()
    path.write_bytes(header + values)
    found = inspect_image(path, 10**8, {})
    assert (found.fault, found.width, found.height, found.held_bits) == (None, 20, 12, told)
    assert difference(path, colours, 4095 if told else white) <= 1
    again = inspect_image(path, 10**8, {found.sha256: (20, 12)})
    assert again == found
