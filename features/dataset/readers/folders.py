"""A data set of class folders."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

from features.dataset.config import ColumnSplit, FolderDataset
from features.dataset.index import Photo, Source
from features.dataset.notes import note
from features.runtime.errors import DatasetError, some
from features.runtime.log import counted, log

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
"""Suffixes of photos. For other files, Pillow reads the beginning to decide."""

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Folder names of each split."""

NO_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}
"""Folders that operating systems and file managers create; ignored, like hidden folders."""

HIDDEN = re.compile(r"\.(?!(git|hg|svn|ipynb_checkpoints|thumbnails|@__thumb|AppleDouble|Trash.*|Spotlight.*|Temp.*)$)")
"""Beginnings of hidden folders' names, except of those that programs create."""

NO_PHOTOS = {"EPS", "MPEG", "TGA"}
"""Pillow formats that do not make a file a photo: vector graphics, video, and one that arbitrary bytes may match."""

HEIC = "`pip install pillow-heif` reads them"
RAW = "raw: develop them first, e.g. with rawpy"
ADVICE = {
    **dict.fromkeys([".heic", ".heif"], HEIC),
    **dict.fromkeys([".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".rw2"], RAW),
}
"""Advice for other kinds of photos. Pillow would read only the small preview of a raw file."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts `class_2` before `class_10`: runs of digits compare as numbers."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
    return [*parts, (-1, 0, name)]  # tells class_1 from class_01


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
    parts = _parts(dataset, root)
    for part, folder in parts.items():
        if part:
            _tell_broken_links(folder)
    names = sorted({name for part in parts.values() for name in _folders(part, root, left_out)}, key=natural_key)
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
    _count_beside(dict.fromkeys([root, *parts.values()]), others)
    for label, name in enumerate(names):
        for part, folder in parts.items():
            found = _photos(folder / name, root, left_out, others)
            photos += [Photo(file.relative_to(root).as_posix(), label, None, part) for file in found]
    _tell_others(others)
    _tell_hidden(root)
    _tell_links(left_out, " A class folder may be a link, unless it leads back to the data set.")
    return Source(photos, tuple(names), root)


def _tell_broken_links(folder: Path) -> None:
    """Notes links among the class folders that lead nowhere: nothing tells whether they were to be classes."""
    try:
        broken = [path for path in _listed(folder) if path.is_symlink() and not path.exists()]
    except OSError as error:  # the link's target is in a folder that cannot be read
        raise _unreadable(folder, error) from None
    if broken:
        names = [path.name for path in sorted(broken)]
        note(f"{len(names)} links in {folder} lead nowhere and are left out: {some(names)}. Fix or remove them.")


def _hint_at_one_folder(dataset: FolderDataset, parts: dict[str | None, Path], name: str) -> None:
    """Raises DatasetError if the only class folder contains folders, which are probably the classes."""
    deeper = [folder / name for folder in parts.values() if (folder / name).is_dir()]
    if not any(_folders(folder, folder, []) for folder in deeper):
        return
    if len(deeper) == 1:
        advice = (
            f"If they are in it, set `dataset.root: {dataset.root / deeper[0].relative_to(dataset.root.resolve())}`."
        )
    else:
        advice = f"If they are in it, move them up, out of {' and '.join(map(repr, map(str, deeper)))}."
    raise DatasetError(f"{deeper[0].parent} must have one folder per class, but has only {name!r}. {advice}")


def find_photos(folder: Path) -> list[Path]:
    """Every photo below a folder, in natural order, found as `features prepare` finds them in a class folder.

    Files that are not photos, and links to folders, are left out with a note. Raises DatasetError for an unreadable folder.
    """
    left_out: list[str] = []
    others = Counter[str]()
    photos = _photos(folder, folder, left_out, others)
    _tell_others(others)
    _tell_hidden(folder)
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
    """Handles files beside the class folders: notes photos, counts other files in `others`, by suffix."""
    files = [file for folder in folders for file in sorted(_listed(folder)) if file.exists() and not file.is_dir()]
    photos = [file for file in files if is_photo(file)]
    others.update(file.suffix.lower() for file in files if file not in photos)
    if photos:
        are = "photo that is" if len(photos) == 1 else "photos that are"
        note(f"Left out {len(photos)} {are} next to the class folders, not in one; the first is {photos[0]}.")


def _tell_hidden(root: Path) -> None:
    """Notes hidden folders below `root` that have photos, by their suffixes; but not those that programs create."""
    counts: dict[str, int] = {}
    for place, folders, _ in os.walk(root):
        for path in (Path(place) / name for name in folders if HIDDEN.match(name)):
            files = () if path.is_symlink() else (file for _, _, files in os.walk(path) for file in files)
            if count := sum(Path(file).suffix.lower() in SUFFIXES for file in files):
                counts[path.relative_to(root).as_posix()] = count
        folders[:] = filter(_is_folder_of_photos, folders)
    if counts:
        listed = some([f"{name} ({count})" for name, count in sorted(counts.items())])
        total = counted(sum(counts.values()), "photo")
        note(f"Left out {total} in hidden folders: {listed}. Rename a folder to use it.")


def _parts(dataset: FolderDataset, root: Path) -> dict[str | None, Path]:
    """The folders that contain class folders, by split; only the root, under None, if splits are drawn.

    A class may be called like a split only beside other classes, and if the configuration asks for a split by shares.
    """
    folders = _folders(root, root, [])
    called = {part: sorted(name for name in folders if split_called(name) == part) for part in SPLIT_FOLDERS}
    found: dict[str | None, str] = {
        part: name for part, names in called.items() for name in names if _folders(root / name, root, [])
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
    return [f"{name} ({counted(len(_photos(root / name, root, [], Counter())), 'photo')})" for name in names]


def split_called(name: str) -> str | None:
    """The split that a name of a folder or in a table stands for, or None."""
    return next((part for part, names in SPLIT_FOLDERS.items() if name.lower() in names), None)


def is_photo(file: Path) -> bool:
    """Whether a file has the suffix of a photo, or starts like a format that Pillow decodes."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if ADVICE.get(suffix) == RAW:
        return False
    from PIL import Image, ImageFile

    try:
        if not file.is_file():  # opening a named pipe would block forever
            return False
        with Image.open(file) as image:  # a stub recognises a format but cannot decode it
            return image.format not in NO_PHOTOS and not isinstance(image, ImageFile.StubImageFile)
    except Exception:  # readers raise all kinds of exceptions on files that are not photos
        return False


def _tell_others(others: Counter[str]) -> None:
    if not others:
        return
    listed = []
    for suffix, count in sorted(others.items()):
        advice = f" ({ADVICE[suffix]})" if suffix in ADVICE else ""
        listed.append(f"{count} {suffix or 'without a suffix'}{advice}")
    note(f"Left out files that cannot be read as photos: {', '.join(listed)}.")


def _tell_links(left_out: list[str], advice: str) -> None:
    if left_out:
        are = "link to a folder is" if len(left_out) == 1 else "links to folders are"
        note(f"{len(left_out)} {are} not followed: {some(left_out)}.{advice}")


def _folders(folder: Path, root: Path, left_out: list[str]) -> list[str]:
    """Names of the class folders. A link to a folder that contains the data set is left out: it would count every photo twice."""
    try:
        found = [path for path in _listed(folder) if path.is_dir()]
    except OSError as error:  # the same
        raise _unreadable(folder, error) from None
    loops = [path for path in found if path.is_symlink() and root.is_relative_to(path.resolve())]
    left_out += [path.relative_to(root).as_posix() for path in loops]
    return [path.name for path in found if path not in loops]


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, except what is hidden or created by operating systems."""
    try:
        return [path for path in folder.iterdir() if _is_folder_of_photos(path.name)]
    except OSError as error:
        raise _unreadable(folder, error) from None


def _unreadable(folder: Path | str, error: OSError) -> DatasetError:
    return DatasetError(f"the folder {folder} cannot be read: {error.strerror}. Change its permissions.")


def _is_folder_of_photos(name: str) -> bool:
    return not name.startswith(".") and name not in NO_FOLDERS


def _files(folder: Path, root: Path, left_out: list[str]) -> Iterator[Path]:
    """Every file below a class folder, including subfolders except hidden ones; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise _unreadable(error.filename, error)

    if not folder.is_dir():  # a class that is missing in this split
        return
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = filter(_is_folder_of_photos, folders)
        left_out += [
            (Path(place) / name).relative_to(root).as_posix() for name in folders if (Path(place) / name).is_symlink()
        ]
        yield from (Path(place) / name for name in files)
