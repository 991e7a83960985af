"""Class folders as users have them: what is read, logged and rejected."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from features.config import FeaturesRun
from features.dataset.index import load_notes
from features.dataset.prepare import prepare
from features.dataset.readers.photo_files import find_photos
from features.runtime.errors import DatasetError
from features.runtime.log import log
from tests.conftest import run_headhunt

random = np.random.default_rng(0)


def photo(path: Path, kind: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 256, (16, 24, 3), np.uint8)).save(path, kind)


def fill(root: Path, *folders: str, count: int = 6) -> Path:
    for folder in folders:
        for number in range(count):
            photo(root / folder / f"{number}.png")
    return root


def run_on(root: Path, **dataset: Any) -> FeaturesRun:
    section = {"kind": "folder", "root": str(root), **dataset}
    return FeaturesRun.model_validate({"workdir": str(root.parent / "run"), "dataset": section})


def prepared(run: FeaturesRun) -> tuple[dict[str, Any], str]:
    with log.capture() as captured:
        result = prepare(run)
    return result, " ".join(captured.get().split())


def test_what_file_managers_leave_is_no_class(tmp_path: Path) -> None:
    folders = (
        "training/a",
        "training/b",
        "testing/a",
        "testing/b",
        "__MACOSX/a",
        "training/@eaDir",
        "training/a/.hidden",
    )
    run = run_on(fill(tmp_path / "photos", *folders, count=12))
    result, words = prepared(run)
    assert (result["images"], result["classes"]) == (48, 2)
    assert "The splits are taken from the folders training, testing." in words


def test_photos_in_hidden_folders_are_counted(tmp_path: Path) -> None:
    """A class folder .hidden vanished without a word; what programs create still does."""
    programs = (
        ".git/a",
        ".Trash-1000/files",
        ".thumbnails",
        "a/.@__thumb",
        "b/.ipynb_checkpoints",
        "__MACOSX/.a",
        "@eaDir",
    )
    root = fill(tmp_path / "photos", "a", "b", ".hidden/deeper", "a/.b", *programs, count=8)
    (root / ".notes").mkdir()
    (root / ".notes" / "notes.txt").write_text("no photo")
    (root / ".link").symlink_to(root / "a")
    result, words = prepared(run_on(root))
    said = "Left out 16 photos in hidden folders: .hidden (8), a/.b (8). Rename a folder to use it."
    assert (result["images"], words) == (16, said)
    assert load_notes(run_on(root)) == [said]
    with log.capture() as captured:
        assert len(find_photos(root / "a")) == 8
    assert "Left out 8 photos in hidden folders: .b (8)." in " ".join(captured.get().split())
    (root / ".hidden").rename(root / "hidden")
    assert prepared(run_on(root))[0]["classes"] == 3


def test_photos_beside_the_class_folders_are_said(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", *(f"{part}/{name}" for part in ("train", "val", "test") for name in ("a", "b")))
    for place in ("", "train", "val"):
        photo(root / place / "stray.png")
    (root / "labels.csv").write_text("path,label")
    _, words = prepared(run_on(root))
    assert f"Left out 3 photos that are next to the class folders, not in one; the first is {root}/stray.png." in words
    assert "Left out files that cannot be read as photos: 1 .csv." in words


def test_a_folder_that_holds_one_folder_gets_a_hint(tmp_path: Path) -> None:
    root = fill(tmp_path / "cars", "cars/a", "cars/b")
    with pytest.raises(DatasetError, match=r"must have one folder per class, but has only 'cars'") as caught:
        prepare(run_on(root))
    assert f"set `dataset.root: {root}/cars`" in str(caught.value)
    assert prepared(run_on(root / "cars"))[0]["classes"] == 2


@pytest.mark.parametrize(
    ("folders", "advice"),
    [
        (
            ("train/train/a", "train/train/b"),
            "{root}/train must have one folder per class, but has only 'train'. .* `dataset.root: {root}/train/train`",
        ),
        (
            ("train/cars/a", "train/cars/b", "val/cars/a", "val/cars/b"),
            "{root}/train must have one folder per class, .* move them up, out of '{root}/train/cars' and '{root}/val/cars'",
        ),
        (
            ("cars/a", "cars/b", "__MACOSX/cars"),
            "{root} must have one folder per class, but has only 'cars'. .* `dataset.root: {root}/cars`",
        ),
    ],
)
def test_class_folders_that_lie_one_deeper_get_a_hint(tmp_path: Path, folders: tuple[str, ...], advice: str) -> None:
    root = fill(tmp_path / "photos", *folders)
    with pytest.raises(DatasetError, match=advice.format(root=root)):
        prepare(run_on(root))


def test_files_that_only_begin_like_photos_are_none(tmp_path: Path) -> None:
    """File headers that Pillow recognises without decoding, bytes that pass for a TGA, and small previews of raw photos."""
    root = fill(tmp_path / "photos", "a", "b", count=4)
    (root / "a" / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    (root / "a" / "x.mpg").write_bytes(b"\0\0\1\xb3\x16\x01\x20" + bytes(64))
    (root / "a" / "x.bin").write_bytes(bytes([0, 0, 2]) + bytes(9) + bytes([4, 0, 4, 0, 24, 0]) + bytes(64))
    photo(root / "a" / "x.eps", "EPS")
    photo(root / "a" / "x.nef", "TIFF")
    photo(root / "a" / "x.dng", "TIFF")
    result, words = prepared(run_on(root))
    assert result["images"] == 8
    raw = "(raw: develop them first, e.g. with rawpy)"
    assert words == (
        f"Left out files that cannot be read as photos: 1 .bin, 1 .dng {raw}, 1 .eps, 1 .h5, 1 .mpg, 1 .nef {raw}."
    )


def test_photos_are_known_by_what_they_hold_and_the_rest_is_counted(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", "a", "b", count=4)
    for name, kind in (("x.jfif", "JPEG"), ("x.avif", "AVIF"), ("x.mpo", "MPO"), ("x", "PNG"), ("x.photo", "GIF")):
        photo(root / "a" / name, kind)
    for name in ("notes.txt", "more.TXT", "list"):
        (root / "b" / name).write_text("no photo")
    (root / "b" / "raw.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (root / "b" / ".hidden").write_text("no photo")
    result, words = prepared(run_on(root))
    assert result["images"] == 8 + 5
    assert load_notes(run_on(root)) == [words]
    assert words == (
        "Left out files that cannot be read as photos: 1 without a suffix, 1 .heic (`pip install pillow-heif` reads them), "
        "2 .txt."
    )


def test_class_folders_that_are_links_to_nowhere_are_said(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", "a", "b")
    for name in ("d", "c", ".hidden"):
        (root / name).symlink_to(tmp_path / "gone" / name)
    result, words = prepared(run_on(root))
    said = "2 links in {} lead nowhere and are left out: c, d. Fix or remove them."
    assert (result["classes"], words) == (2, said.format(root))
    assert load_notes(run_on(root)) == [said.format(root)]
    root = fill(tmp_path / "splits", *(f"{part}/{name}" for part in ("train", "val", "test") for name in ("a", "b")))
    for name in ("c", "d"):
        (root / "val" / name).symlink_to(tmp_path / "gone" / name)
    assert said.format(root / "val") in prepared(run_on(root))[1]


def test_a_named_pipe_is_no_photo_and_is_not_opened(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", "a", "b")
    os.mkfifo(root / "a" / "pipe")
    os.mkfifo(root / "pipe.x")
    result, words = prepared(run_on(root))
    assert result["images"] == 12
    assert words == "Left out files that cannot be read as photos: 1 without a suffix, 1 .x."
    with log.capture() as captured:
        assert len(find_photos(root)) == 12
    assert " ".join(captured.get().split()) == words


def test_a_tilde_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home of the user who runs the command; no folder called `~` is created."""
    home = tmp_path / "home"
    fill(home / "photos", "a", "b", count=4)
    shutil.move(home / "photos", home / "cars")
    (tmp_path / "headhunt.yaml").write_text("workdir: ~/run\ndataset: {kind: folder, root: ~/cars}\n")
    monkeypatch.setenv("HOME", str(home))
    done = run_headhunt(tmp_path, "features", "prepare")
    assert done.returncode == 0, done.stderr
    assert (home / "run" / "dataset" / "index.csv").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["headhunt.yaml", "home"]
