"""Class folders and split folders as users have them: what is read, logged and rejected."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from features.config import FeaturesRun
from features.dataset.index import load_index, load_notes
from features.dataset.prepare import prepare
from features.dataset.readers.folders import find_photos
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


def splits_by_folder(run: FeaturesRun) -> dict[str, set[str]]:
    """The splits that the photos of each folder of the root are in."""
    table = load_index(run).table
    return {str(name): set(own) for name, own in table["split"].groupby(table["path"].str.split("/").str[0])}


@pytest.mark.parametrize("val", ["val", "valid", "validation", "dev", "Valid"])
@pytest.mark.parametrize("split", [None, {"column": "folder"}])
def test_split_folders_are_the_splits(tmp_path: Path, val: str, split: dict[str, str] | None) -> None:
    root = fill(tmp_path / "photos", *(f"{part}/{name}" for part in ("train", val, "test") for name in ("a", "b")))
    run = run_on(root, **({"split": split} if split else {}))
    result, words = prepared(run)
    assert (result["images"], result["classes"]) == (36, 2)
    assert result["splits"] == {"train": 12, "val": 12, "test": 12}
    assert splits_by_folder(run) == {"train": {"train"}, val: {"val"}, "test": {"test"}}
    assert load_index(run).class_names == ("a", "b")
    assert words == ("" if split else f"The splits are taken from the folders train, {val}, test.")


@pytest.mark.parametrize(
    ("parts", "shares"),
    [
        (("train", "valid"), {"test": 0.15 / 0.80}),
        (("train", "test"), {"val": 0.20 / 0.85}),
        (("train",), {"val": 0.20, "test": 0.15}),
    ],
)
def test_missing_splits_are_drawn_from_the_training_folder_and_said(
    tmp_path: Path, parts: tuple[str, ...], shares: dict[str, float]
) -> None:
    root = fill(tmp_path / "photos", *(f"{part}/{name}" for part in parts for name in ("a", "b", "c")), count=20)
    run = run_on(root)
    result, words = prepared(run)
    assert result["images"] == 60 * len(parts)
    for part, share in shares.items():
        assert abs(result["splits"][part] - 60 * share) <= 1
        said = f"The data set has no {part} split: {share:.0%} of its training photos are drawn for it, with seed 42."
        assert said in words
    assert splits_by_folder(run)["train"] == {"train", *shares}
    table = load_index(run).table
    counts = Counter(zip(table["label"], table["split"], strict=True))
    assert all(counts[label, part] >= 1 for label in range(3) for part in ("train", "val", "test"))
    before = table["split"].tolist()
    prepare(run)
    assert load_index(run).table["split"].tolist() == before


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        (("train/a", "train/b", "val/a", "val/b"), {"train": 0.6, "val": 0.2, "test": 0.2}),
        (("train/a", "train/b", "test/a", "test/b", "extra/a"), None),
        (("train/a", "train/b", "extra/a"), None),
    ],
)
def test_folders_called_like_splits_are_no_classes(
    tmp_path: Path, folders: tuple[str, ...], split: dict[str, float] | None
) -> None:
    run = run_on(fill(tmp_path / "photos", *folders), **({"split": split} if split else {}))
    with pytest.raises(DatasetError, match=r"named like splits \(train(, val|, test|)\)") as caught:
        prepare(run)
    assert "write `dataset.split: {column: folder}`" in str(caught.value)
    assert ("beside extra" in str(caught.value)) == ("extra/a" in folders)


def test_splits_without_training_photos_are_refused(tmp_path: Path) -> None:
    run = run_on(fill(tmp_path / "photos", "val/a", "val/b", "test/a", "test/b"))
    with pytest.raises(
        DatasetError, match=r"has no folder `train` of class folders, but has val, test. Add it, or rename"
    ):
        prepare(run)


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


def test_folders_beside_configured_splits_are_said_with_what_they_hold(tmp_path: Path) -> None:
    parts = [f"{part}/{name}" for part in ("train", "val", "test") for name in ("a", "b")]
    run = run_on(fill(tmp_path / "photos", *parts, "extra/a", "extra/b"), split={"column": "folder"})
    result, words = prepared(run)
    assert result["images"] == 36
    assert words == "Ignored, because they are not splits: extra (12 photos)."


def test_photos_beside_the_class_folders_are_said(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", *(f"{part}/{name}" for part in ("train", "val", "test") for name in ("a", "b")))
    for place in ("", "train", "val"):
        photo(root / place / "stray.png")
    (root / "labels.csv").write_text("path,label")
    _, words = prepared(run_on(root))
    assert f"Left out 3 photos that are next to the class folders, not in one; the first is {root}/stray.png." in words
    assert "Left out files that cannot be read as photos: 1 .csv." in words


def test_a_class_of_which_a_split_has_no_photo_is_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", "train/a", "train/b", "train/c", "val/a", "val/b", "val/c", "test/a", "test/b")
    assert "1 of 3 classes have no test photos: 'c'." in prepared(run_on(root))[1]


def test_a_class_that_the_folders_never_train_is_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", "train/a", "train/b", "test/a", "test/b", "test/c")
    with pytest.raises(DatasetError, match=r"leaves 1 of 3 classes without training photos; the first is 'c'"):
        prepare(run_on(root))


def test_a_split_has_one_folder(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", *(f"{part}/{name}" for part in ("train", "val", "valid") for name in ("a", "b")))
    with pytest.raises(DatasetError, match=r"has both val and valid, which are the same split. Keep one of them"):
        prepare(run_on(root, split={"column": "folder"}))


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    run = run_on(fill(tmp_path / "photos", "bus", "train", "tram"))
    assert prepared(run)[0]["classes"] == 3
    assert load_index(run).class_names == ("bus", "train", "tram")
    run = run_on(fill(tmp_path / "states", "dev", "staging", "test"))
    assert prepared(run)[0]["classes"] == 3


@pytest.mark.parametrize("folders", ["train val test", "train test", "Training dev", "val test", "train test extra"])
@pytest.mark.parametrize("split", [None, {"train": 0.6, "val": 0.2, "test": 0.2}])
def test_folders_of_photos_called_like_splits_are_no_classes(
    tmp_path: Path, folders: str, split: dict[str, float] | None
) -> None:
    run = run_on(fill(tmp_path / "photos", *folders.split()), **({"split": split} if split else {}))
    called = ", ".join(sorted(name for name in folders.split() if name != "extra"))
    with pytest.raises(DatasetError, match=rf"photos in folders named like splits \({called}\), which") as caught:
        prepare(run)
    assert "into class folders below each (train/<class>/…), or list them in a table" in str(caught.value)


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
