"""A data set of class sub-folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from features.command import log
from features.config import ColumnSplit, FolderDataset
from features.dataset import SPLITS, Photo, Source
from features.errors import DatasetError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}

SHOWN = 5
"""How many links a message lists."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `class_2` before `class_10`: runs of digits compare as numbers."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
    return [*parts, (-1, 0, name)]  # tells class_1 from class_01


def read_folders(dataset: FolderDataset) -> Source:
    """Reads `root/<class>/*`, or `root/<train|val|test>/<class>/*` when the split is taken from the folders.

    Classes are numbered in numeric-aware order. A class folder may be a link; links to folders further down, and links that
    lead back to the data set itself, are left out and said. Raises DatasetError when the folder is missing, cannot be read,
    or holds no class folder.
    """
    try:
        root = dataset.root.resolve()
    except (OSError, RuntimeError):  # a link that leads to itself
        raise DatasetError(f"{dataset.root} is a link that leads nowhere. Correct `dataset.root`.") from None
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}. Correct `dataset.root`.")
    left_out: list[str] = []
    parts: dict[str | None, Path] = {None: root}
    if isinstance(dataset.split, ColumnSplit):
        parts = {part: root / part for part in SPLITS if (root / part).is_dir()}
        if "train" not in parts:
            raise DatasetError(
                f"{root} has no folder `train`, which `split: {{column: …}}` reads for a folder data set."
            )
    names = sorted({name for part in parts.values() for name in _folders(part, root, left_out)}, key=natural_key)
    if not names:
        raise DatasetError(f"{root} holds no class folders: one sub-folder of photos for each class is expected.")
    if names != sorted(names):
        log.print(
            f"Classes are numbered in numeric-aware order ({names[0]}, {names[1]}, …); plain alphabetical order, which "
            "Keras's image_dataset_from_directory uses, would differ.",
            style="yellow",
        )
    photos = [
        Photo(file.relative_to(root).as_posix(), label, None, part)
        for label, name in enumerate(names)
        for part, folder in parts.items()
        for file in sorted(_files(folder / name, root, left_out), key=lambda file: natural_key(file.as_posix()))
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]
    if left_out:
        log.print(
            f"{len(left_out)} links to folders are not followed: {', '.join(left_out[:SHOWN])}"
            f"{' …' if len(left_out) > SHOWN else ''}. A class folder may be a link, unless it leads back to the data set.",
            style="yellow",
        )
    return Source(photos, tuple(names), root)


def _folders(folder: Path, root: Path, left_out: list[str]) -> list[str]:
    """Names of the class folders; a link to a folder that holds the data set would show every photo twice."""
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise DatasetError(f"the folder {folder} cannot be read: {error.strerror}. Change its permissions.") from None
    loops = [path for path in found if path.is_symlink() and root.is_relative_to(path.resolve())]
    left_out += [path.relative_to(root).as_posix() for path in loops]
    return [path.name for path in found if path not in loops]


def _files(folder: Path, root: Path, left_out: list[str]) -> Iterator[Path]:
    """Every file below a class folder. Sub-folders are read, whatever they are called; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise DatasetError(f"the folder {error.filename} cannot be read: {error.strerror}. Change its permissions.")

    if not folder.is_dir():  # a class that this part of the split lacks
        return
    for place, folders, files in os.walk(folder, onerror=refuse):
        left_out += [
            (Path(place) / name).relative_to(root).as_posix() for name in folders if (Path(place) / name).is_symlink()
        ]
        yield from (Path(place) / name for name in files)
