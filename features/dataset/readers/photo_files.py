"""The photos below a folder: which files are photos, and notes on what is left out."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from features.dataset.notes import note
from features.runtime.errors import DatasetError, some
from features.runtime.log import counted

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
"""Suffixes of photos. For other files, Pillow reads the beginning to decide."""

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


def find_photos(folder: Path) -> list[Path]:
    """Every photo below a folder, in natural order, found as `features prepare` finds them in a class folder.

    Files that are not photos, and links to folders, are left out with a note. Raises DatasetError for an unreadable folder.
    """
    left_out: list[str] = []
    others = Counter[str]()
    photos = photos_below(folder, folder, left_out, others)
    tell_others(others)
    tell_hidden(folder)
    tell_links(left_out, "")
    return photos


def photos_below(folder: Path, root: Path, left_out: list[str], others: Counter[str]) -> list[Path]:
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


def class_folders(folder: Path, root: Path, left_out: list[str]) -> list[str]:
    """Names of the class folders. A link to a folder that contains the data set is left out: it would count every photo twice."""
    try:
        found = [path for path in visible(folder) if path.is_dir()]
    except OSError as error:  # the same
        raise unreadable(folder, error) from None
    loops = [path for path in found if path.is_symlink() and root.is_relative_to(path.resolve())]
    left_out += [path.relative_to(root).as_posix() for path in loops]
    return [path.name for path in found if path not in loops]


def visible(folder: Path) -> list[Path]:
    """What is in a folder, except what is hidden or created by operating systems."""
    try:
        return [path for path in folder.iterdir() if _is_folder_of_photos(path.name)]
    except OSError as error:
        raise unreadable(folder, error) from None


def _files(folder: Path, root: Path, left_out: list[str]) -> Iterator[Path]:
    """Every file below a class folder, including subfolders except hidden ones; links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise unreadable(error.filename, error)

    if not folder.is_dir():  # a class that is missing in this split
        return
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = filter(_is_folder_of_photos, folders)
        left_out += [
            (Path(place) / name).relative_to(root).as_posix() for name in folders if (Path(place) / name).is_symlink()
        ]
        yield from (Path(place) / name for name in files)


def _is_folder_of_photos(name: str) -> bool:
    return not name.startswith(".") and name not in NO_FOLDERS


def unreadable(folder: Path | str, error: OSError) -> DatasetError:
    return DatasetError(f"the folder {folder} cannot be read: {error.strerror}. Change its permissions.")


def count_beside(folders: Iterable[Path], others: Counter[str]) -> None:
    """Handles files beside the class folders: notes photos, counts other files in `others`, by suffix."""
    files = [file for folder in folders for file in sorted(visible(folder)) if file.exists() and not file.is_dir()]
    photos = [file for file in files if is_photo(file)]
    others.update(file.suffix.lower() for file in files if file not in photos)
    if photos:
        are = "photo that is" if len(photos) == 1 else "photos that are"
        note(f"Left out {len(photos)} {are} next to the class folders, not in one; the first is {photos[0]}.")


def tell_hidden(root: Path) -> None:
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


def tell_others(others: Counter[str]) -> None:
    if not others:
        return
    listed = []
    for suffix, count in sorted(others.items()):
        advice = f" ({ADVICE[suffix]})" if suffix in ADVICE else ""
        listed.append(f"{count} {suffix or 'without a suffix'}{advice}")
    note(f"Left out files that cannot be read as photos: {', '.join(listed)}.")


def tell_links(left_out: list[str], advice: str) -> None:
    if left_out:
        are = "link to a folder is" if len(left_out) == 1 else "links to folders are"
        note(f"{len(left_out)} {are} not followed: {some(left_out)}.{advice}")
