"""A data set of class folders."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from features.dataset.config import FolderDataset
from features.dataset.index import Photo, Source
from features.dataset.notes import note
from features.dataset.readers.photo_files import (
    class_folders,
    count_beside,
    natural_key,
    photos_below,
    tell_hidden,
    tell_links,
    tell_others,
    unreadable,
    visible,
)
from features.dataset.readers.split_folders import find_split_folders
from features.runtime.errors import DatasetError, some
from features.runtime.log import log


def read_folders(dataset: FolderDataset) -> Source:
    """Reads `root/<class>/*`, or `root/<train|val|test>/<class>/*` if the split is taken from folders.

    It is with a split by column, or if no split is configured and every folder is named like a split and contains folders.
    Classes are numbered in natural order (class_2 before class_10). A class folder may be a link. Links to folders further down,
    links that lead back to the data set, files that are not photos and files beside the class folders are left out with a note.
    Raises DatasetError when the folder is missing, unreadable, without class folders, or ambiguous.
    """
    try:
        root = dataset.root.resolve()
    except (OSError, RuntimeError):  # a link to itself
        raise DatasetError(f"{dataset.root} is a broken link. Fix `dataset.root`.") from None
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}. Fix `dataset.root`.")
    left_out: list[str] = []
    _tell_broken_links(root)
    parts = find_split_folders(dataset, root)
    for part, folder in parts.items():
        if part:
            _tell_broken_links(folder)
    names = sorted({name for part in parts.values() for name in class_folders(part, root, left_out)}, key=natural_key)
    if not names:
        raise DatasetError(f"{root} has no class folders. Create one subfolder of photos per class.")
    if len(names) == 1:
        _hint_at_one_folder(dataset, parts, names[0])
    if names != sorted(names):
        log.print(
            f"Classes are numbered in natural order ({names[0]}, {names[1]}, …). This differs from the alphabetical order "
            "of Keras's image_dataset_from_directory.",
            style="yellow",
        )
    photos, others = [], Counter[str]()
    count_beside(dict.fromkeys([root, *parts.values()]), others)
    for label, name in enumerate(names):
        for part, folder in parts.items():
            found = photos_below(folder / name, root, left_out, others)
            photos += [Photo(file.relative_to(root).as_posix(), label, None, part) for file in found]
    tell_others(others)
    tell_hidden(root)
    tell_links(left_out, " A class folder may be a link, unless it leads back to the data set.")
    return Source(photos, tuple(names), root)


def _tell_broken_links(folder: Path) -> None:
    """Notes links among the class folders that lead nowhere: nothing tells whether they were to be classes."""
    try:
        broken = [path for path in visible(folder) if path.is_symlink() and not path.exists()]
    except OSError as error:  # the link's target is in a folder that cannot be read
        raise unreadable(folder, error) from None
    if broken:
        names = [path.name for path in sorted(broken)]
        note(f"{len(names)} links in {folder} lead nowhere and are left out: {some(names)}. Fix or remove them.")


def _hint_at_one_folder(dataset: FolderDataset, parts: dict[str | None, Path], name: str) -> None:
    """Raises DatasetError if the only class folder contains folders, which are probably the classes."""
    deeper = [folder / name for folder in parts.values() if (folder / name).is_dir()]
    if not any(class_folders(folder, folder, []) for folder in deeper):
        return
    if len(deeper) == 1:
        advice = (
            f"If they are in it, set `dataset.root: {dataset.root / deeper[0].relative_to(dataset.root.resolve())}`."
        )
    else:
        advice = f"If they are in it, move them up, out of {' and '.join(map(repr, map(str, deeper)))}."
    raise DatasetError(f"{deeper[0].parent} must have one folder per class, but has only {name!r}. {advice}")
