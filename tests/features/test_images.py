"""Odd photos: the pixels of each, and the messages for unusable ones. All files are real and made here."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, PngImagePlugin

from features.config import FeaturesRun
from features.dataset.images import Inspected, inspect_image, load_images, open_photo
from features.dataset.index import load_index
from features.dataset.prepare import prepare
from features.runtime.errors import DatasetError
from features.runtime.log import log

pytestmark = pytest.mark.unit

Pixels = npt.NDArray[np.uint8]

PLAIN = 10**8
"""`dataset.max_pixels`, out of the way."""


def stored(upright: Pixels, orientation: int) -> Pixels:
    """How a camera stores a photo: EXIF 2.32, tag 0x0112 says which sides its row 0 and column 0 are."""
    turned = upright.transpose(1, 0, 2)
    return {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: turned,  # left, top
        6: turned[::-1],  # right, top
        7: turned[::-1, ::-1],  # right, bottom
        8: turned[:, ::-1],  # left, bottom
    }[orientation]


@pytest.fixture
def upright() -> Pixels:
    """12 × 20 pixels, all quarters different."""
    pixels = np.zeros((12, 20, 3), np.uint8)
    pixels[:6, :10], pixels[:6, 10:], pixels[6:, :10] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    return pixels


def run_on(root: Path, **dataset: Any) -> FeaturesRun:
    section = {"kind": "folder", "root": str(root), **dataset}
    return FeaturesRun.model_validate({"workdir": str(root.parent / "run"), "dataset": section})


def said(run: FeaturesRun) -> tuple[dict[str, Any], str]:
    """The result of `prepare`, and its log."""
    with log.capture() as captured:
        result = prepare(run)
    return result, " ".join(captured.get().split())


@pytest.fixture
def root(tmp_path: Path, upright: Pixels) -> Path:
    """Two classes of four photos."""
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(upright + np.uint8(number + 4 * (name == "b"))).save(
                tmp_path / "photos" / name / f"{number}.png"
            )
    return tmp_path / "photos"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"),
    [("png", {}), ("tiff", {}), ("webp", {"lossless": True}), ("jpg", {"quality": 100, "subsampling": 0})],
)
def test_a_turned_photo_is_upright(
    tmp_path: Path, upright: Pixels, orientation: int, suffix: str, options: dict[str, Any]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored(upright, orientation))).save(path, exif=exif, **options)
    found = inspect_image(path, PLAIN, {})
    assert (found.fault, found.width, found.height) == (None, 20, 12)
    difference = np.abs(np.asarray(open_photo(path)).astype(int) - upright)
    assert np.median(difference) <= 2
    assert difference.mean() < (4 if suffix == "jpg" else 0.001)  # a JPEG blurs the edges between the quarters


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "I;16"])
def test_a_turned_tiff_is_the_same_uncompressed(tmp_path: Path, upright: Pixels, mode: str, orientation: int) -> None:
    """Pillow maps an uncompressed file into memory as it is, and decodes a compressed one."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = Image.fromarray(np.ascontiguousarray(stored(upright, orientation)))
    image = Image.fromarray(np.asarray(turned.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else turned
    photos = []
    for compression in ("raw", "tiff_lzw"):
        path = tmp_path / f"{compression}.tif"
        (image if mode == "I;16" else image.convert(mode)).save(path, exif=exif, compression=compression)
        found = inspect_image(path, PLAIN, {})
        photos.append(open_photo(path))
        assert (found.fault, found.width, found.height) == (None, 20, 12)
        assert photos[-1].size == (20, 12)
    grey = np.asarray(Image.fromarray(upright).convert("L"))
    assert np.array_equal(*map(np.asarray, photos))
    assert mode in ("CMYK", "RGBA") or np.abs(np.asarray(photos[0])[..., 0].astype(int) - grey).max() <= 1


def test_a_box_is_in_pixels_of_the_upright_photo(tmp_path: Path, upright: Pixels) -> None:
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = np.ascontiguousarray(stored(upright, orientation))
            Image.fromarray(pixels).save(tmp_path / name / f"{orientation}.png", exif=exif)
    lines = [f"{name}/{n}.png,{name},11,1,20,6" for name in ("a", "b") for n in range(1, 9)]
    (tmp_path / "photos.csv").write_text("\n".join(["path,class_name,x1,y1,x2,y2", *lines]))
    run = FeaturesRun.model_validate(
        {
            "workdir": str(tmp_path / "run"),
            "dataset": {
                "kind": "csv",
                "file": str(tmp_path / "photos.csv"),
                "crop_to_bbox": True,
                "on_duplicate": "keep",
            },
        }
    )
    _, words = said(run)
    assert "past the edge" not in words  # 20 is the width of the upright photo
    index = load_index(run)
    pixels = load_images(index, range(16), (6, 10), True)
    assert (pixels == (20, 250, 20)).all()


@pytest.mark.parametrize(
    ("mode", "suffix", "colour", "expected"),
    [
        ("L", "jpg", 200, (200, 200, 200)),
        ("1", "png", 1, (255, 255, 255)),
        ("LA", "png", (90, 10), (90, 90, 90)),
        ("CMYK", "jpg", (0, 255, 255, 0), (254, 0, 0)),
        ("CMYK", "tiff", (255, 0, 0, 0), (0, 255, 255)),
        ("RGBA", "png", (10, 120, 200, 0), (10, 120, 200)),
        ("RGBA", "webp", (10, 120, 200, 128), (10, 120, 200)),
        ("RGB", "webp", (10, 120, 200), (10, 120, 200)),
        ("RGB", "bmp", (10, 120, 200), (10, 120, 200)),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(
    tmp_path: Path, mode: str, suffix: str, colour: Any, expected: tuple[int, int, int]
) -> None:
    path = tmp_path / f"photo.{suffix}"
    options: dict[str, Any] = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.new(mode, (16, 8), colour).save(path, **options)
    with Image.open(path) as opened:
        assert opened.mode == mode
    assert inspect_image(path, PLAIN, {}).fault is None
    image = open_photo(path)
    assert (image.mode, image.size) == ("RGB", (16, 8))
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 128])])
def test_a_palette_keeps_its_colours_with_and_without_transparency(
    tmp_path: Path, transparency: int | bytes | None
) -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([200, 30, 60, 10, 220, 90])
    image.putpixel((3, 1), 1)
    options = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "photo.png", **options)
    with Image.open(tmp_path / "photo.png") as opened:
        assert opened.mode == "P"
    pixels = np.asarray(open_photo(tmp_path / "photo.png"))
    assert pixels[0, 0].tolist() == [200, 30, 60]
    assert pixels[1, 3].tolist() == [10, 220, 90]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame_is_the_photo(root: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    for number in range(7):
        frames[0].save(
            root / "a" / f"moving {number}.{suffix}", save_all=True, append_images=frames[1:], duration=50, **options
        )
    frames[0].save(root / "b" / f"still.{suffix}")
    run = run_on(root)
    expected = "7 photos have several frames or pages; only the first is used: a/moving 0"
    for _ in ("new", "known"):
        result, words = said(run)
        assert words.startswith(expected)
        assert "and 2 more." in words
        assert result["images"] == 16
    assert open_photo(root / "a" / f"moving 6.{suffix}").getpixel((4, 4)) == (250, 0, 0)


def test_one_pixel_fills_the_photo(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (9, 90, 190)).save(tmp_path / "photo.png")
    found = inspect_image(tmp_path / "photo.png", PLAIN, {})
    assert (found.fault, found.width, found.height) == (None, 1, 1)
    resized = open_photo(tmp_path / "photo.png").resize((7, 5), Image.Resampling.BILINEAR)
    assert (np.asarray(resized) == (9, 90, 190)).all()


def write_png(path: Path, size: tuple[int, int], bits: int, kind: int, lines: Iterable[bytes]) -> None:
    """A PNG by its specification: `kind` 0 is grey, 2 RGB; a line begins with its filter, 0."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(line) for line in lines), packer.flush()])
    header = struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


def black_png(path: Path, width: int, height: int) -> None:
    """A 1-bit PNG written line by line: neither its pixels nor its bytes are ever in memory at once."""
    write_png(path, (width, height), 1, 0, (bytes(1 + (width + 7) // 8) for _ in range(height)))


@pytest.mark.parametrize("tag", [(0x011A, 2, b"72.\0"), (0x0100, 2, b"64\0\0"), (0x0112, 2, b"up\0\0")])
def test_tags_that_pillow_cannot_write_again_are_only_read(
    tmp_path: Path, upright: Pixels, tag: tuple[int, int, bytes]
) -> None:
    """EXIF 2.32: big-endian entries of tag, type, count and value; text where a number belongs. Orientation 6 is its row 0 at
    the right; where the orientation itself is text there is none."""
    entries = {tag[0]: struct.pack(">HHL", *tag[:2], 3) + tag[2]}
    entries.setdefault(0x0112, struct.pack(">HHLHH", 0x0112, 3, 1, 6, 0))
    listed = b"".join(entry for _, entry in sorted(entries.items()))
    exif = b"Exif\0\0MM\0*" + struct.pack(">LH", 8, len(entries)) + listed + struct.pack(">L", 0)
    turned = tag[0] != 0x0112
    pixels = np.ascontiguousarray(stored(upright, 6)) if turned else upright
    path = tmp_path / "photo.jpg"
    Image.fromarray(pixels).save(path, exif=exif, quality=100, subsampling=0)
    found = inspect_image(path, PLAIN, {})
    assert (found.fault, found.width, found.height) == (None, 20, 12)
    assert np.median(np.abs(np.asarray(open_photo(path)).astype(int) - upright)) <= 2


def test_long_text_in_a_png_is_no_fault(tmp_path: Path, upright: Pixels) -> None:
    for megabytes, fault in ((2, None), (80, "not a readable image (")):
        text = PngImagePlugin.PngInfo()
        text.add_itxt("notes", "x" * (megabytes << 20), zip=True)
        Image.fromarray(upright).save(tmp_path / "photo.png", pnginfo=text)
        found = inspect_image(tmp_path / "photo.png", PLAIN, {}).fault
        assert found == fault if fault is None else (found or "").startswith(fault)
        assert fault is None or "too large" in (found or "")


def test_twelve_bits_of_sixteen_are_scaled_by_what_they_hold(root: Path) -> None:
    """4095 is white; a photo with brighter pixels has 16 bits. Every value lands within one step of its share of white."""
    values = np.linspace(0, 4095, 64).round().astype(np.uint16).reshape(8, 8)
    for name, white, scaled in (("sensor", 4095, values), ("deep", 65535, values * 16)):
        Image.fromarray(scaled).save(root / "a" / f"{name}.png")
        pixels = np.asarray(open_photo(root / "a" / f"{name}.png"))[..., 0]
        assert np.abs(pixels - scaled / white * 255).max() <= 1
    for _ in ("new", "known"):
        assert (
            said(run_on(root))[1]
            == "Read as 12-bit, because all their 16-bit values are below 4096: 1 of 10 photos, a/sensor.png."
        )


def test_a_huge_photo_is_refused_by_its_header(tmp_path: Path) -> None:
    black_png(tmp_path / "small.png", 20, 10)
    assert inspect_image(tmp_path / "small.png", PLAIN, {}).fault is None
    huge = tmp_path / "huge.png"
    black_png(huge, 20_000, 20_000)
    refused = Inspected("larger than dataset.max_pixels (20000 × 20000 > 100000000)")
    assert inspect_image(huge, PLAIN, {}) == refused
    huge.write_bytes(huge.read_bytes()[:1000])  # if decoded, it would be a truncated photo
    assert inspect_image(huge, PLAIN, {}) == refused
    assert inspect_image(huge, 10**9, {}).fault == "truncated"


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "tiff", "bmp"])
def test_a_photo_cut_short_is_truncated_wherever_it_is_cut(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(share * len(whole))])
        assert inspect_image(path, PLAIN, {}).fault == "truncated"
        with pytest.raises(DatasetError, match=r"cannot read the photo .*photo"):
            open_photo(path)


def test_names_with_spaces_and_letters_of_any_alphabet(root: Path, upright: Pixels) -> None:
    (root / "b").rename(root / "Škoda Octavia, 2012 – «Комби»")
    odd = root / "Škoda Octavia, 2012 – «Комби»" / 'фото 日本 "1", e\u0301 .PNG'
    upright = upright + np.uint8(9)
    Image.fromarray(upright).save(odd)
    run = run_on(root)
    assert prepare(run)["images"] == 9
    index = load_index(run)
    assert index.class_names == ("a", "Škoda Octavia, 2012 – «Комби»")
    row = index.table.index[index.table["path"] == odd.relative_to(root).as_posix()][0]
    assert (load_images(index, [int(row)], (12, 20), False)[0] == upright).all()


def test_what_is_no_photo_is_listed_at_once_with_its_kind_or_left_out(root: Path, upright: Pixels) -> None:
    (root / "a" / "itself.jpg").symlink_to("itself.jpg")
    (root / "a" / "nowhere.jpg").symlink_to("gone.jpg")
    (root / "a" / "empty.png").write_bytes(b"")
    os.mkfifo(root / "a" / "pipe.jpg")
    Path(os.fsdecode(bytes(root / "a") + b"/\xff.png")).write_bytes((root / "a" / "0.png").read_bytes())
    black_png(root / "b" / "huge.png", 3_000, 4_000)
    with pytest.raises(DatasetError) as caught:
        prepare(run_on(root, max_pixels=10**6))
    for line in (
        "6 of 14 photos",
        "unreadable: a/itself.jpg (Too many levels of symbolic links)",
        "missing: a/nowhere.jpg",
        "empty: a/empty.png",
        "not a regular file: a/pipe.jpg",
        "with a name that is not UTF-8; rename it: a/?.png",
        "larger than dataset.max_pixels: b/huge.png (3000 × 4000 > 1000000)",
    ):
        assert line in str(caught.value)
    result, words = said(run_on(root, max_pixels=10**6, on_missing="skip"))
    assert (result["images"], result["skipped"]) == (8, 6)
    assert "Skipped 6 of 14 photos:" in words
    assert "1 unreadable" in words


def test_a_photo_without_read_permission(root: Path) -> None:
    (root / "a" / "0.png").chmod(0)
    if os.access(root / "a" / "0.png", os.R_OK):
        pytest.skip("this user, probably root, may read every file")
    with pytest.raises(DatasetError, match=r"unreadable: a/0.png \(Permission denied\)"):
        prepare(run_on(root))
    (root / "b").chmod(0)
    with pytest.raises(DatasetError, match=r"the folder .*b cannot be read: Permission denied"):
        prepare(run_on(root))
    (root / "b").chmod(0o755)


def test_links_that_loop_are_left_out_and_a_folder_called_like_a_photo_is_a_folder(
    root: Path, upright: Pixels, tmp_path: Path
) -> None:
    inner = root / "a" / "old.jpg"
    inner.mkdir()
    Image.fromarray(upright).save(inner / "9.png")
    (inner / "loop").symlink_to("..")
    (root / "b" / "loop.jpg").symlink_to(root / "b")
    (root / "b").rename(tmp_path / "elsewhere")
    (root / "b").symlink_to(tmp_path / "elsewhere")  # a class folder may be a link
    (root / "all").symlink_to(".")
    (root / "itself").symlink_to("itself")
    run = run_on(root)
    result, words = said(run)
    assert (result["images"], result["classes"]) == (9, 2)
    assert "3 links to folders are not followed: all, a/old.jpg/loop, b/loop.jpg." in words
    assert "a/old.jpg/9.png" in set(load_index(run).table["path"])
    with pytest.raises(DatasetError, match="is a broken link"):
        prepare(run_on(root / "itself"))


def test_a_table_that_names_a_folder(root: Path) -> None:
    (root / "a" / "0.png").unlink()
    (root / "a" / "0.png").mkdir()
    lines = [f"photos/{name}/{n}.png,{name}" for name in ("a", "b") for n in range(4)]
    table = root.parent / "photos.csv"
    table.write_text("\n".join(["path,class_name", *lines]))
    run = FeaturesRun.model_validate(
        {"workdir": str(root.parent / "run"), "dataset": {"kind": "csv", "file": str(table)}}
    )
    with pytest.raises(DatasetError, match=r"a folder, not a file: photos/a/0.png"):
        prepare(run)


def test_paths_that_cannot_be_resolved_are_named_with_within(root: Path) -> None:
    (root / "a" / "itself.png").symlink_to("itself.png")
    lines = [f"photos/{name}/{n}.png,{name}" for name in ("a", "b") for n in range(4)]
    lines += ["photos/a/\0.png,a", "photos/a/itself.png,a", "../other/0.png,b"]
    (root.parent / "photos.csv").write_text("\n".join(["path,class_name", *lines]))
    section = {"kind": "csv", "file": str(root.parent / "photos.csv"), "within": str(root.parent)}
    with pytest.raises(
        DatasetError, match=r"3 of 11 photos .* cannot be used \(1 with a line break .*1 unreadable, 1 outside"
    ):
        prepare(FeaturesRun.model_validate({"workdir": str(root.parent / "run"), "dataset": section}))
