"""Photos as arrays: decode, turn upright, crop, resize."""

from __future__ import annotations

import contextlib
import hashlib
import io
import stat
import sys
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

WHITE = (1 << 16) - 1
"""The largest value of 16-bit pixels."""

HELD_BITS = (8, 10, 12, 14)
"""Sensors and programs store so many bits in 16-bit pixels: all values of such photos are below 2 ** bits."""

LOW_BYTES = {
    **{
        f"{bands};16{order}": f"{bands};16{other}" for bands in ("RGB", "RGBA", "RGBX") for order, other in ("BL", "LB")
    },
    **{f"{bands};16N": f"{bands};16{'BL'[sys.byteorder == 'big']}" for bands in ("RGB", "RGBA", "RGBX")},
    "LA;16B": "RGBA",
}
"""For Pillow's raw modes of 16-bit colours, of which it keeps the high bytes: the raw mode that keeps the low ones (of grey with
alpha: both)."""


@dataclass(frozen=True)
class Inspected:
    """Result of checking one file. `fault` describes what is wrong, or is None; `width` and `height` are of the upright photo.

    `animated`: the file has several frames or pages, of which only the first is used. `held_bits`: its 16-bit pixels hold
    values of so many bits, by which they are scaled.
    """

    fault: str | None
    width: int = 0
    height: int = 0
    sha256: str = ""
    animated: bool = False
    held_bits: int | None = None


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
            if sha256 in known and not image.mode.startswith("I") and _layout(image) is None:
                return Inspected(None, *known[sha256], sha256, animated)
            width, height = image.size
            if width * height > max_pixels:
                return Inspected(f"larger than dataset.max_pixels ({width} × {height} > {max_pixels})")
            if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
                return Inspected("with 32-bit pixels, which have no defined white level; convert them to 8 or 16 bits")
            image.draft("RGB", (64, 64))  # reads a JPEG to its end, but decodes it at reduced scale
            decoded = _decoded(image, data)
            sideways = _orientation(image) in SIDEWAYS
    except Exception as error:  # decoders raise all kinds of exceptions on damaged files
        fault = "truncated" if "truncated" in str(error).lower() else f"not a readable image ({_reason(error)})"
        return Inspected(fault)
    upright = (height, width) if sideways else (width, height)
    return Inspected(None, *upright, sha256, animated, decoded.held_bits)


def load_images(
    index: DatasetIndex, rows: Sequence[int], image_size: tuple[int, int], crop_to_bbox: bool, threads: int = 2
) -> npt.NDArray[np.uint8]:
    """Decodes the photos of `rows` with `open_photo` and resizes them to `image_size` (height, width), bilinear, ignoring the
    aspect ratio.

    Returns (len(rows), height, width, 3) uint8. Raises DatasetError naming a file that cannot be read or has changed.
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
) -> list[tuple[Path, tuple[int, int, int, int] | None, str]]:
    """The file, the crop box (or None) and the sha256 of each row position in the index's table, for `open_photo`."""
    chosen = index.table.iloc[list(rows)]
    boxes = [
        (int(box[0]), int(box[1]), int(box[2]), int(box[3])) if crop_to_bbox and not any(map(_missing, box)) else None
        for box in chosen[BOX].itertuples(index=False)
    ]
    return list(zip([index.root / path for path in chosen["path"]], boxes, chosen["sha256"], strict=True))


def open_photo(path: Path, box: tuple[int, int, int, int] | None = None, sha256: str | None = None) -> Image.Image:
    """One photo at its original size: the first frame, turned upright, as RGB, then cropped to `box` if given.

    `box` is in pixels of the upright photo, as drawn on a screen; see `features.dataset.index.Photo`. Raises DatasetError for a
    file that cannot be read, one whose bytes do not have this `sha256` (hex), or a box outside the photo.
    """
    try:
        data = path.read_bytes()  # of a file, Pillow 13 maps turned TIFFs into memory with width and height swapped
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise DatasetError(
                f"the photo {path} has changed since `headhunt features prepare`: features and results of the old one would be "
                "mixed with the new one. Restore it, or rerun `headhunt features prepare`."
            )
        with Image.open(io.BytesIO(data)) as opened:
            image = _decoded(opened, data).photo
    except DatasetError:
        raise
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
    held_bits: int | None


def _decoded(image: Image.Image, data: bytes) -> _Decoded:
    """The first frame of an opened file with this content, upright, as 8-bit RGB.

    Grey, CMYK, palette and 16-bit photos are converted; transparency is dropped.
    """
    layout, format_, states_white = _layout(image), image.format, _states_white(image)
    image = _upright(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and format_ == "PPM"):
        values = np.asarray(image).astype(np.uint16)  # Pillow's own conversion clips values above 255 to white
        return _Decoded(_bright(values, 16), None) if states_white else _scaled(values)
    if layout:
        brightest = np.asarray(image)[..., :3].max()
        if brightest < 1 << HELD_BITS[-1] - 8 and format_ in ("PNG", "TIFF") and layout in LOW_BYTES:
            return _scaled(_colours(data, layout))
        if brightest <= 1 << 12 - 8:
            raise ValueError("12-bit colours in 16-bit channels, which Pillow reads as black; convert it to 8 bits")
    if "transparency" in image.info and image.mode != "RGB":
        image = image.convert("RGBA")
    return _Decoded(image.convert("RGB"), None)


def _scaled(values: npt.NDArray[np.uint16]) -> _Decoded:
    """16-bit values, (height, width) or (height, width, 3), as a photo, scaled by the fewest bits that hold them."""
    brightest = int(values.max())
    held_bits = next((bits for bits in HELD_BITS if 0 < brightest < 1 << bits), None)
    return _Decoded(_bright(values, held_bits or 16), held_bits)


def _bright(values: npt.NDArray[np.uint16], bits: int) -> Image.Image:
    """Values of this many bits as an RGB photo of 8 bits."""
    return Image.fromarray((values >> bits - 8).astype(np.uint8)).convert("RGB")


def _states_white(image: Image.Image) -> bool:
    """Whether an opened file is a PGM that states its white level, by which Pillow scales the values to 16 bits."""
    if not (tiles := getattr(image, "tile", ())):
        return False
    return tiles[0].codec_name in ("ppm", "ppm_plain") and tiles[0].args[-1] != WHITE


def _layout(image: Image.Image) -> str | None:
    """The raw mode of an opened file's 16-bit colours, such as `RGB;16B`, or their decoder; None for other photos.

    Pillow keeps 8 bits of such colours.
    """
    if not (tiles := getattr(image, "tile", ())) or not image.mode.startswith("RGB"):
        return None
    decoder, args = tiles[0].codec_name, tiles[0].args
    if decoder == "SGI16" or (decoder in ("ppm", "ppm_plain") and args[-1] == WHITE):
        return str(decoder)
    layout = str(args if isinstance(args, str) else args[0])
    return layout if ";16" in layout else None


def _colours(data: bytes, layout: str) -> npt.NDArray[np.uint16]:
    """The 16-bit values of a file with this layout, upright, without alpha: (height, width, 3), or (height, width) if grey."""

    def read(raw_mode: str) -> npt.NDArray[np.uint16]:
        with Image.open(io.BytesIO(data)) as image:
            image.tile = [
                tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *tile.args[1:]))
                for tile in getattr(image, "tile", ())
            ]
            return np.asarray(_upright(image)).astype(np.uint16)

    byte, low = np.uint16(8), read(LOW_BYTES[layout])
    if layout == "LA;16B":  # two bytes of grey, two of alpha
        return low[..., 0] << byte | low[..., 1]
    return (read(layout) << byte | low)[..., :3]


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # for a TIFF, this already turns it upright
    turn = TURNS.get(_orientation(image))
    # ImageOps.exif_transpose rewrites all other tags, and fails on tags that Pillow can read but not write.
    return image if turn is None else image.transpose(turn)


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
