"""Photos as arrays: decode, turn upright, crop, resize."""

from __future__ import annotations

import contextlib
import hashlib
import io
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from features.dataset.index import BOX, DatasetIndex
from features.runtime.configfile import shortened
from features.runtime.errors import DatasetError

with contextlib.suppress(ImportError):  # optional, for HEIC photos
    import pillow_heif

    pillow_heif.register_heif_opener()

Image.MAX_IMAGE_PIXELS = None  # `dataset.max_pixels` is checked instead, from the header, before decoding

PngImagePlugin.MAX_TEXT_CHUNK = (
    PngImagePlugin.MAX_TEXT_MEMORY
)  # 64 MB instead of 1 MB: editors write long histories into photos

ORIENTATION = 0x0112
"""The EXIF tag."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""The transpose that turns a photo upright, by EXIF orientation."""

SIDEWAYS = {5, 6, 7, 8}
"""Orientations that swap width and height."""

LONGEST_REASON = 120
"""Most characters of a decoder's message that are quoted."""

TWELVE_BITS = 1 << 12
"""Many sensors store 12 bits in 16-bit pixels: all values of such photos are below this."""


@dataclass(frozen=True)
class Inspected:
    """Result of checking one file. `fault` describes what is wrong, or is None; `width` and `height` are of the upright photo.

    `animated`: the file has several frames or pages, of which only the first is used. `twelve_bits`: its 16-bit pixels hold
    12-bit values.
    """

    fault: str | None
    width: int = 0
    height: int = 0
    sha256: str = ""
    animated: bool = False
    twelve_bits: bool = False


def inspect_image(path: Path, max_pixels: int, known: dict[str, tuple[int, int]]) -> Inspected:
    """Hashes a file and decodes it once to check that it is intact.

    `known` maps the sha256 of files that passed before to their sizes; these are not decoded again.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # reading a named pipe would block forever
            return Inspected("a folder, not a file" if stat.S_ISDIR(mode) else "not a regular file")
        data = path.read_bytes()
    except FileNotFoundError:
        return Inspected("missing")
    except OSError as error:
        return Inspected(f"unreadable ({error.strerror})")
    if not data:
        return Inspected("empty")
    sha256 = hashlib.sha256(data).hexdigest()
    jpeg = data.startswith(b"\xff\xd8")  # some cameras store a preview as a second frame
    try:
        if sha256 in known and jpeg:
            return Inspected(None, *known[sha256], sha256)
        with Image.open(io.BytesIO(data)) as image:
            animated = not jpeg and bool(getattr(image, "is_animated", False))
            if sha256 in known and not image.mode.startswith("I;16"):
                return Inspected(None, *known[sha256], sha256, animated)
            width, height = image.size
            if width * height > max_pixels:
                return Inspected(f"larger than dataset.max_pixels ({width} × {height} > {max_pixels})")
            if image.mode in ("I", "F"):
                return Inspected("with 32-bit pixels, which have no defined white level; convert them to 8 or 16 bits")
            image.draft("RGB", (64, 64))  # reads a JPEG to its end, but decodes it at reduced scale
            decoded = _decoded(image)
            sideways = _orientation(image) in SIDEWAYS
    except Exception as error:  # decoders raise all kinds of exceptions on damaged files
        fault = "truncated" if "truncated" in str(error).lower() else f"not a readable image ({_reason(error)})"
        return Inspected(fault)
    upright = (height, width) if sideways else (width, height)
    return Inspected(None, *upright, sha256, animated, decoded.twelve_bits)


def load_images(
    index: DatasetIndex, rows: Sequence[int], image_size: tuple[int, int], crop_to_bbox: bool, threads: int = 2
) -> npt.NDArray[np.uint8]:
    """Decodes the photos of `rows` with `open_photo` and resizes them to `image_size` (height, width), bilinear, ignoring the
    aspect ratio.

    Returns (len(rows), height, width, 3) uint8. Raises DatasetError naming a file that cannot be read.
    """
    pixels = np.empty((len(rows), *image_size, 3), np.uint8)

    located = locate(index, rows, crop_to_bbox)

    def load(position: int) -> None:
        pixels[position] = resized(open_photo(*located[position]), image_size)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(load, range(len(rows))))
    return pixels


def resized(photo: Image.Image, image_size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """An RGB photo resized to `image_size`: (height, width, 3) uint8, bilinear, ignoring the aspect ratio; for every model."""
    height, width = image_size
    return np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))


def locate(
    index: DatasetIndex, rows: Sequence[int], crop_to_bbox: bool
) -> list[tuple[Path, tuple[int, int, int, int] | None]]:
    """The file and the crop box (or None) of each row position in the index's table: the arguments of `open_photo`."""
    chosen = index.table.iloc[list(rows)]
    boxes = [
        (int(box[0]), int(box[1]), int(box[2]), int(box[3])) if crop_to_bbox and not any(map(_missing, box)) else None
        for box in chosen[BOX].itertuples(index=False)
    ]
    return list(zip([index.root / path for path in chosen["path"]], boxes, strict=True))


def open_photo(path: Path, box: tuple[int, int, int, int] | None = None) -> Image.Image:
    """One photo at its original size: the first frame, turned upright, as RGB, then cropped to `box` if given.

    `box` is in pixels of the upright photo, as drawn on a screen; see `features.dataset.index.Photo`. Raises DatasetError for a
    file that cannot be read, or a box outside the photo.
    """
    try:
        with Image.open(path) as opened:
            image = _decoded(opened).photo
    except Exception as error:  # the file changed after `inspect_image` accepted it
        raise DatasetError(
            f"cannot read the photo {path}: {_reason(error)}. Rerun `headhunt features prepare`; with "
            "`dataset.on_missing: skip` it leaves such photos out."
        ) from None
    if box is not None:
        x1, y1, x2, y2 = box
        left, top, right, bottom = max(0, x1 - 1), max(0, y1 - 1), min(image.width, x2), min(image.height, y2)
        if left >= right or top >= bottom:
            raise DatasetError(
                f"{path}: the bounding box ({x1}, {y1})…({x2}, {y2}) is outside the photo of {image.width} × {image.height} "
                "pixels. If the photos are already cropped, set `dataset.crop_to_bbox: false`."
            )
        image = image.crop((left, top, right, bottom))
    return image


def _missing(value: object) -> bool:
    return not isinstance(value, int | np.integer)


class _Decoded(NamedTuple):
    photo: Image.Image
    twelve_bits: bool


def _decoded(image: Image.Image) -> _Decoded:
    """The first frame of an opened file, upright, as 8-bit RGB.

    Grey, CMYK, palette and 16-bit photos are converted; transparency is dropped.
    """
    deep_colours = image.mode.startswith("RGB") and any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    image.load()  # for a TIFF, this already turns it upright
    turn = TURNS.get(_orientation(image))
    # ImageOps.exif_transpose rewrites all other tags, and fails on tags that Pillow can read but not write.
    image = image if turn is None else image.transpose(turn)
    twelve_bits = False
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips values above 255 to white
        values = np.asarray(image)
        twelve_bits = bool(values.max() < TWELVE_BITS)
        image = Image.fromarray((values >> (4 if twelve_bits else 8)).astype(np.uint8))
    elif deep_colours and np.asarray(image).max() < TWELVE_BITS >> 8:
        raise ValueError("12-bit colours in 16-bit channels, which Pillow reads as black; convert it to 8 bits")
    if "transparency" in image.info and image.mode != "RGB":
        image = image.convert("RGBA")
    return _Decoded(image.convert("RGB"), twelve_bits)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if it is missing or cannot be read."""
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow raises all kinds of exceptions on malformed tags
        return 1
    return found if isinstance(found, int) else 1


def _reason(error: Exception) -> str:
    """A decoder's message as one short line."""
    if isinstance(error, UnidentifiedImageError):  # its own message shows an object's memory address
        return "unknown format"
    return shortened(" ".join(str(error).split()) or type(error).__name__, LONGEST_REASON)
