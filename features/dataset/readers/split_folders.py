"""Folders named like splits: whether the splits of a data set of class folders are taken from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from pathlib import Path

from features.dataset.config import ColumnSplit, FolderDataset
from features.dataset.notes import note
from features.dataset.readers.photo_files import class_folders, photos_below
from features.runtime.errors import DatasetError, some
from features.runtime.log import counted, log

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Folder names of each split."""


def split_called(name: str) -> str | None:
    """The split that a name of a folder or in a table stands for, or None."""
    return next((part for part, names in SPLIT_FOLDERS.items() if name.lower() in names), None)


def find_split_folders(dataset: FolderDataset, root: Path) -> dict[str | None, Path]:
    """The folders that contain class folders, by split; only the root, under None, if splits are drawn.

    A class may be called like a split only beside other classes, and if the configuration asks for a split by shares.
    """
    folders = class_folders(root, root, [])
    called = {part: sorted(name for name in folders if split_called(name) == part) for part in SPLIT_FOLDERS}
    found: dict[str | None, str] = {
        part: name for part, names in called.items() for name in names if class_folders(root / name, root, [])
    }
    flat = [name for names in called.values() for name in names if name not in found.values()]
    by_folder = isinstance(dataset.split, ColumnSplit)
    if not found and not by_folder:
        if flat and not ("split" in dataset.model_fields_set and _may_be_classes(folders, flat)):
            raise _flat_splits(root, flat, folders)
        if flat:
            note(f"Read as classes, although named like splits: {', '.join(_with_counts(root, flat))}.")
        return {None: root}
    if twice := next((names for names in called.values() if len(names) > 1), None):
        raise DatasetError(
            f"{root} has both {' and '.join(twice)}, which are the same split. Keep one of them: merge them, or move one "
            f"out of {root}."
        )
    if flat:
        raise _flat_splits(root, flat, folders, found)
    shown = ", ".join(found.values())
    if "train" not in found:
        raise DatasetError(
            f"{root} has no folder `train` of class folders, "
            + (
                f"but has {shown}. Add it, or rename these if they are classes."
                if found
                else "which `split: {column: …}` needs for a folder data set. Add it, or remove `dataset.split`; then the "
                "splits are drawn."
            )
        )
    others = sorted(name for name in folders if name not in found.values())
    if not by_folder and ("split" in dataset.model_fields_set or others):
        beside, ignored = (f", beside {some(others)}", f"; {some(others)} will be ignored") if others else ("", "")
        raise DatasetError(
            f"{root} has folders named like splits ({shown}){beside}, which a split by shares would treat as "
            f"classes. To take the splits from these folders, write `dataset.split: {{column: folder}}`{ignored}. Otherwise "
            "set `dataset.root` to a folder of class folders, and rename any class with such a name."
        )
    if others:
        note(f"Ignored, because they are not splits: {', '.join(_with_counts(root, others))}.")
    elif not by_folder:
        log.print(f"The splits are taken from the folders {shown}.")
    return {part: root / name for part, name in found.items()}


def _may_be_classes(folders: list[str], flat: list[str]) -> bool:
    """Whether folders of photos that are called like splits may be classes beside others, such as a train among cars and planes:
    not if all are called so, nor if both train and another one are."""
    parts = {split_called(name) for name in flat}
    return len(flat) < len(folders) and not ("train" in parts and len(parts) > 1)


def _flat_splits(root: Path, flat: list[str], folders: list[str], found: Container[str | None] = ()) -> DatasetError:
    """The error about folders that are called like splits but have no class folders, unlike those `found`."""
    if "train" in found:
        otherwise = f"If the classes of these photos are unknown, move {' and '.join(flat)} out of {root}."
    else:
        permit = "write `dataset.split: {train: 0.65, val: 0.20, test: 0.15}`, or "
        rename = f"{permit if not found and _may_be_classes(folders, flat) else ''}rename"
        otherwise = f"If this is a class, {rename} it." if len(flat) == 1 else f"If these are classes, {rename} them."
    return DatasetError(
        f"{root} has folders named like splits, but without class folders in them: {', '.join(_with_counts(root, flat))}. "
        f"A split has one folder per class: put its photos into {flat[0]}/<class>/…, or list all photos in a table with the "
        "columns path, class_name and split, and write `dataset: {kind: csv, file: …, split: {column: split}}`. "
        + otherwise
    )


def _with_counts(root: Path, names: list[str]) -> list[str]:
    """Names of folders, each with the number of its photos."""
    return [f"{name} ({counted(len(photos_below(root / name, root, [], Counter())), 'photo')})" for name in names]
