"""Folders called like splits as users have them: what is read, logged and rejected."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.config import FeaturesRun
from features.dataset.index import load_index, load_notes
from features.dataset.prepare import prepare
from features.runtime.errors import DatasetError
from tests.features.test_folders import fill, prepared, run_on


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
        said = f"The data set has no {part} split: {100 * share:.0f} % of its training photos are drawn for it, with seed 42."
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
    assert ("; extra will be ignored. Otherwise" in str(caught.value)) == ("extra/a" in folders)


def test_splits_without_training_photos_are_refused(tmp_path: Path) -> None:
    run = run_on(fill(tmp_path / "photos", "val/a", "val/b", "test/a", "test/b"))
    with pytest.raises(
        DatasetError, match=r"has no folder `train` of class folders, but has val, test. Add it, or rename"
    ):
        prepare(run)


def test_folders_beside_configured_splits_are_said_with_what_they_hold(tmp_path: Path) -> None:
    parts = [f"{part}/{name}" for part in ("train", "val", "test") for name in ("a", "b")]
    run = run_on(fill(tmp_path / "photos", *parts, "extra/a", "extra/b"), split={"column": "folder"})
    result, words = prepared(run)
    assert result["images"] == 36
    assert words == "Ignored, because they are not splits: extra (12 photos)."


def test_a_class_of_which_a_split_has_no_photo_is_named(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", "train/a", "train/b", "train/c", "val/a", "val/b", "val/c", "test/a", "test/b")
    assert "1 of 3 classes have no test photos: 'c'." in prepared(run_on(root))[1]


def test_a_class_that_the_folders_never_train_is_named(tmp_path: Path) -> None:
    """The advice was a split by shares, which is refused for these folders."""
    root = fill(tmp_path / "photos", "train/a", "train/b", "test/a", "test/b", "test/c")
    with pytest.raises(DatasetError) as caught:
        prepare(run_on(root))
    assert str(caught.value) == (
        "the split leaves 1 of 3 classes without training photos: 'c'. Put photos of every class into the folder `train`, or "
        "move the folders of classes without training photos out of the data set."
    )
    fill(root, "train/c", count=3)
    assert prepared(run_on(root))[0]["classes"] == 3
    shutil.move(root / "test" / "c", tmp_path / "c")
    shutil.move(root / "train" / "c", tmp_path / "trained")
    assert prepared(run_on(root))[0]["classes"] == 2


def test_folders_of_training_photos_that_are_empty(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", "test/a", "test/b")
    for name in ("a", "b"):
        (root / "train" / name).mkdir(parents=True)
    with pytest.raises(
        DatasetError, match=r"has no train photos, but each split needs some\. Put photos of every class"
    ):
        prepare(run_on(root))
    fill(root, "train/a", "train/b")
    assert prepared(run_on(root))[0]["images"] == 24


@pytest.mark.parametrize("folders", ["bus train tram", "train car", "val car", "dev staging test"])
def test_a_class_may_be_called_like_a_split_if_a_split_by_shares_is_asked_for(tmp_path: Path, folders: str) -> None:
    root = fill(tmp_path / "photos", *folders.split())
    called = [name for name in ("train", "val", "dev", "test") if name in folders.split()]
    photos = ", ".join(f"{name} (6 photos)" for name in called)
    for split in ({}, {"split": {"column": "folder"}}):
        with pytest.raises(DatasetError, match=re.escape(f"without class folders in them: {photos}. ")) as caught:
            prepare(run_on(root, **split))
        assert "class, write" in str(caught.value) or "classes, write" in str(caught.value)
    run = run_on(
        root, split=yaml.safe_load(str(caught.value).split("write `dataset.split: ")[1].split("`, or rename")[0])
    )
    result, words = prepared(run)
    assert result["classes"] == len(folders.split())
    assert load_index(run).class_names == tuple(sorted(folders.split()))
    assert words == f"Read as classes, although named like splits: {photos}."
    assert load_notes(run) == [words]


@pytest.mark.parametrize("folders", ["train val test", "train test", "Training dev", "val test", "train test extra"])
@pytest.mark.parametrize("split", [None, {"train": 0.6, "val": 0.2, "test": 0.2}])
def test_folders_of_photos_called_like_splits_are_no_classes(
    tmp_path: Path, folders: str, split: dict[str, float] | None
) -> None:
    run = run_on(fill(tmp_path / "photos", *folders.split()), **({"split": split} if split else {}))
    called = [name for name in folders.split() if name != "extra"]
    with pytest.raises(
        DatasetError, match=r"has folders named like splits, but without class folders in them: "
    ) as caught:
        prepare(run)
    assert all(f"{name} (6 photos)" in str(caught.value) for name in called)
    assert f"put its photos into {called[0]}/<class>/…, or list all photos in a table with" in str(caught.value)
    assert str(caught.value).endswith(" If these are classes, rename them.")


SPLITS_ASKED = [{}, {"split": {"column": "folder"}}, {"split": {"train": 0.65, "val": 0.20, "test": 0.15}}]


@pytest.mark.parametrize("flat", ["test", "val", "Valid", "testing"])
@pytest.mark.parametrize("split", SPLITS_ASKED)
def test_a_split_whose_photos_lie_in_no_class_folder_is_refused(
    tmp_path: Path, flat: str, split: dict[str, Any]
) -> None:
    """It was ignored, and another drawn from train."""
    root = fill(tmp_path / "photos", "train/a", "train/b", flat)
    with pytest.raises(DatasetError) as caught:
        prepare(run_on(root, **split))
    assert str(caught.value) == (
        f"{root} has folders named like splits, but without class folders in them: {flat} (6 photos). A split has one folder "
        f"per class: put its photos into {flat}/<class>/…, or list all photos in a table with the columns path, class_name "
        "and split, and write `dataset: {kind: csv, file: …, split: {column: split}}`. If the classes of these photos are "
        f"unknown, move {flat} out of {root}."
    )
    shutil.move(root / flat, tmp_path / "unknown")
    assert prepared(run_on(root))[0]["images"] == 12
    shutil.move(tmp_path / "unknown", root / flat / "a")
    assert prepared(run_on(root))[0]["images"] == 18


@pytest.mark.parametrize("split", SPLITS_ASKED)
def test_training_photos_that_lie_in_no_class_folder_are_refused(tmp_path: Path, split: dict[str, Any]) -> None:
    root = fill(tmp_path / "photos", "train", "val", "test/a", "test/b")
    with pytest.raises(
        DatasetError, match=r"without class folders in them: train \(6 photos\), val \(6 photos\)\. "
    ) as caught:
        prepare(run_on(root, **split))
    assert "put its photos into train/<class>/…" in str(caught.value)
    assert "move train" not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "folders"),
    [
        ("val", "valid", ("train/a", "train/b", "val/a", "val/b", "valid/a", "valid/b")),
        ("val", "valid", ("train/a", "train/b", "val/a", "val/b", "valid")),
        ("train", "training", ("train/a", "train/b", "training/a", "training/b")),
    ],
)
@pytest.mark.parametrize("split", SPLITS_ASKED)
def test_two_folders_of_one_split_are_said_first(
    tmp_path: Path, one: str, other: str, folders: tuple[str, ...], split: dict[str, Any]
) -> None:
    """The advice to take the splits from the folders led to this message."""
    root = fill(tmp_path / "photos", *folders)
    with pytest.raises(DatasetError) as caught:
        prepare(run_on(root, **split))
    assert str(caught.value) == (
        f"{root} has both {one} and {other}, which are the same split. Keep one of them: merge them, or move one out of {root}."
    )
    shutil.move(root / other, tmp_path / "gone")
    assert prepared(run_on(root))[0]["classes"] == 2


def test_a_split_by_folders_without_folders_of_splits(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", "a", "b")
    with pytest.raises(
        DatasetError, match=r"no folder `train` of class folders, .* Add it, or remove `dataset.split`; then"
    ):
        prepare(run_on(root, split={"column": "folder"}))
    assert prepared(run_on(root))[0]["classes"] == 2
