"""A data set of class sub-folders."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from features.dataset.config import ColumnSplit, FolderDataset
from features.dataset.index import Photo, Source
from features.dataset.notes import note
from features.runtime.errors import DatasetError, some
from features.runtime.log import log

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
"""Files that are taken for photos by their names; of others Pillow looks at the beginning."""

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What folders of a split are called."""

NO_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}
"""What file managers leave beside photos; hidden folders are no folders of photos either."""

NO_PHOTOS = {"EPS", "MPEG", "TGA"}
"""Formats of Pillow that a file of any suffix is not taken for: drawings, films, and one that any bytes may pass for."""

HEIC = "`pip install pillow-heif` reads them"
RAW = "raw: develop them first, as rawpy does"
ADVICE = {
    **dict.fromkeys([".heic", ".heif"], HEIC),
    **dict.fromkeys([".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"], RAW),
}
"""How photos of other kinds are read. Pillow would take a raw one for its small preview."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `class_2` before `class_10`: runs of digits compare as numbers."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
    return [*parts, (-1, 0, name)]  # tells class_1 from class_01


def read_folders(dataset: FolderDataset) -> Source:
    """Reads `root/<class>/*`, or `root/<train|val|test>/<class>/*` where the split is taken from folders.

    That is so with a split by column, and where no split is configured and every folder is called like one and holds folders.
    Classes are numbered in numeric-aware order. A class folder may be a link; links to folders further down, and links that lead
    back to the data set itself, are left out and said, as files are that are no photos or lie beside the class folders. Raises
    DatasetError when the folder is missing, cannot be read, holds no class folder, or could be read in two ways.
    """
    try:
        root = dataset.root.resolve()
    except (OSError, RuntimeError):  # a link that leads to itself
        raise DatasetError(f"{dataset.root} is a broken link. Correct `dataset.root`.") from None
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}. Correct `dataset.root`.")
    left_out: list[str] = []
    parts = _parts(dataset, root)
    names = sorted({name for part in parts.values() for name in _folders(part, root, left_out)}, key=natural_key)
    if not names:
        raise DatasetError(f"{root} holds no class folders: one sub-folder of photos for each class is expected.")
    if len(names) == 1:
        _hint_at_one_folder(dataset, parts, names[0])
    if names != sorted(names):
        log.print(
            f"Classes are numbered in numeric-aware order ({names[0]}, {names[1]}, …); plain alphabetical order, which "
            "Keras's image_dataset_from_directory uses, would differ.",
            style="yellow",
        )
    photos, others = [], Counter[str]()
    _count_beside(dict.fromkeys([root, *parts.values()]), others)
    for label, name in enumerate(names):
        for part, folder in parts.items():
            found = _photos(folder / name, root, left_out, others)
            photos += [Photo(file.relative_to(root).as_posix(), label, None, part) for file in found]
    _tell_others(others)
    _tell_links(left_out, " A class folder may be a link, unless it leads back to the data set.")
    return Source(photos, tuple(names), root)


def _hint_at_one_folder(dataset: FolderDataset, parts: dict[str | None, Path], name: str) -> None:
    """DatasetError where the one class folder holds folders: the classes are likely in it."""
    deeper = [folder / name for folder in parts.values() if (folder / name).is_dir()]
    if not any(_folders(folder, folder, []) for folder in deeper):
        return
    if len(deeper) == 1:
        advice = (
            f"If these are in it, write `dataset.root: {dataset.root / deeper[0].relative_to(dataset.root.resolve())}`."
        )
    else:
        advice = f"If these are in it, move them up, out of {' and '.join(map(repr, map(str, deeper)))}."
    raise DatasetError(f"{deeper[0].parent} holds one folder, {name!r}, and one for each class is needed. {advice}")


def find_photos(folder: Path) -> list[Path]:
    """Every photo below a folder, in numeric-aware order: what `features prepare` would count in a class folder.

    Files that are no photos, and links to folders, are left out and said. Raises DatasetError for a folder that cannot be read.
    """
    left_out: list[str] = []
    others = Counter[str]()
    photos = _photos(folder, folder, left_out, others)
    _tell_others(others)
    _tell_links(left_out, "")
    return photos


def _photos(folder: Path, root: Path, left_out: list[str], others: Counter[str]) -> list[Path]:
    """The photos below a folder; other files are counted in `others`, by suffix."""
    photos = []
    for file in sorted(_files(folder, root, left_out), key=lambda file: natural_key(file.as_posix())):
        if file.name.startswith("."):
            continue
        if is_photo(file):
            photos.append(file)
        else:
            others[file.suffix.lower()] += 1
    return photos


def _count_beside(folders: Iterable[Path], others: Counter[str]) -> None:
    """Looks at the files that lie where class folders are expected: photos are said, others counted."""
    files = [file for folder in folders for file in sorted(folder.iterdir()) if file.is_file() and file.name[0] != "."]
    photos = [file for file in files if is_photo(file)]
    others.update(file.suffix.lower() for file in files if file not in photos)
    if photos:
        note(
            f"Left out, because they are next to the class folders, not in one: {len(photos)} photos, the first is {photos[0]}."
        )


def _parts(dataset: FolderDataset, root: Path) -> dict[str | None, Path]:
    """The folders that hold class folders, by split; the root alone, by None, where splits are drawn."""
    folders = _folders(root, root, [])
    nested = [name for name in folders if _folders(root / name, root, [])]
    called = {part: [name for name in nested if name.lower() in names] for part, names in SPLIT_FOLDERS.items()}
    twice = next((names for names in called.values() if len(names) > 1), None)
    found: dict[str | None, str] = {part: names[0] for part, names in called.items() if names}
    others = [name for name in folders if name not in found.values()]
    shown = ", ".join(found.values())
    by_folder = isinstance(dataset.split, ColumnSplit)
    if not found and not by_folder:
        return {None: root}
    if "train" not in found:
        raise DatasetError(
            f"{root} has no folder `train` of class folders, "
            + (
                "which `split: {column: …}` reads for a folder data set."
                if by_folder
                else f"but {shown}. Add it, or rename these if they are classes."
            )
        )
    if not by_folder and ("split" in dataset.model_fields_set or twice or others):
        beside = f", beside {some(others)}" if others else ""
        raise DatasetError(
            f"{root} holds folders named like splits ({shown}){beside}, and a split by shares would take them for "
            "classes. Write `dataset.split: {column: folder}` to take the splits from these folders, or name a folder of "
            "class folders as `dataset.root`; a class with such a name must be renamed."
        )
    if twice:
        raise DatasetError(f"{root} holds both {' and '.join(sorted(twice))}, which are one split. Keep one of them.")
    if others:
        counts = [f"{name} ({len(_photos(root / name, root, [], Counter()))} photos)" for name in sorted(others)]
        note(f"Ignored, because they are not splits: {', '.join(counts)}.")
    elif not by_folder:
        log.print(f"The splits come from the folders {shown}.")
    return {part: root / name for part, name in found.items()}


def is_photo(file: Path) -> bool:
    """Whether a file is called like a photo, or begins like one that Pillow decodes."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if ADVICE.get(suffix) == RAW:
        return False
    from PIL import Image, ImageFile

    try:
        with Image.open(file) as image:  # a stub tells the format, and decodes nothing
            return image.format not in NO_PHOTOS and not isinstance(image, ImageFile.StubImageFile)
    except Exception:  # whatever a reader raises on what is no photo
        return False


def _tell_others(others: Counter[str]) -> None:
    if not others:
        return
    listed = []
    for suffix, count in sorted(others.items()):
        advice = f" ({ADVICE[suffix]})" if suffix in ADVICE else ""
        listed.append(f"{count} {suffix or 'without a suffix'}{advice}")
    note(f"Left out, not images that Pillow can read: {', '.join(listed)}.")


def _tell_links(left_out: list[str], advice: str) -> None:
    if left_out:
        note(f"{len(left_out)} links to folders are not followed: {some(left_out)}.{advice}")


def _folders(folder: Path, root: Path, left_out: list[str]) -> list[str]:
    """Names of the class folders; a link to a folder that holds the data set would show every photo twice."""
    try:
        found = [path for path in folder.iterdir() if path.is_dir() and _is_folder_of_photos(path.name)]
    except OSError as error:
        raise DatasetError(f"the folder {folder} cannot be read: {error.strerror}. Change its permissions.") from None
    loops = [path for path in found if path.is_symlink() and root.is_relative_to(path.resolve())]
    left_out += [path.relative_to(root).as_posix() for path in loops]
    return [path.name for path in found if path not in loops]


def _is_folder_of_photos(name: str) -> bool:
    return not name.startswith(".") and name not in NO_FOLDERS


def _files(folder: Path, root: Path, left_out: list[str]) -> Iterator[Path]:
    """Every file below a class folder. Sub-folders are read but hidden ones; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise DatasetError(f"the folder {error.filename} cannot be read: {error.strerror}. Change its permissions.")

    if not folder.is_dir():  # a class that this part of the split lacks
        return
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = filter(_is_folder_of_photos, folders)
        left_out += [
            (Path(place) / name).relative_to(root).as_posix() for name in folders if (Path(place) / name).is_symlink()
        ]
        yield from (Path(place) / name for name in files)
