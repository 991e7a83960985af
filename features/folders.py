"""A data set of class sub-folders."""

from __future__ import annotations

import re
from pathlib import Path

from features.command import log
from features.config import ColumnSplit, FolderDataset
from features.dataset import SPLITS, Photo, Source
from features.errors import DatasetError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `class_2` before `class_10`: runs of digits compare as numbers."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
    return [*parts, (-1, 0, name)]  # tells class_1 from class_01


def read_folders(dataset: FolderDataset) -> Source:
    """Reads `root/<class>/*`, or `root/<train|val|test>/<class>/*` when the split is taken from the folders.

    Classes are numbered in numeric-aware order. Raises DatasetError when the folder is missing or holds no class folder.
    """
    root = dataset.root.resolve()
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}. Correct `dataset.root`.")
    parts: dict[str | None, Path] = {None: root}
    if isinstance(dataset.split, ColumnSplit):
        parts = {part: root / part for part in SPLITS if (root / part).is_dir()}
        if "train" not in parts:
            raise DatasetError(
                f"{root} has no folder `train`, which `split: {{column: …}}` reads for a folder data set."
            )
    names = sorted({name for part in parts.values() for name in _folders(part)}, key=natural_key)
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
        for file in sorted((folder / name).rglob("*"), key=lambda file: natural_key(file.as_posix()))
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]
    return Source(photos, tuple(names), root)


def _folders(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
