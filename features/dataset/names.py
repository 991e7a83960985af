"""Checks that names of classes and photos work in all later stages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import PurePath

from features.dataset.index import Photo
from features.runtime.errors import DatasetError, some
from features.runtime.log import counted

TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the writing direction of the following text, so that a name would look like another one."""

RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[1-9¹²³]) *(\..*)?", re.IGNORECASE)
"""File names that Windows reserves for devices."""


def check_names(names: Sequence[str], photos: Sequence[Photo]) -> None:
    """Raises DatasetError for class names that tables, labels.txt, terminals or other file systems cannot represent or
    distinguish."""
    first = {photo.label: photo.path for photo in reversed(photos)}
    placed = [f"{name!r} (first photo: {first[label]})" for label, name in enumerate(names)]
    odd = [place for name, place in zip(names, placed, strict=True) if not is_one_line(name) or not name.strip()]
    if odd:
        raise DatasetError(
            f"{len(odd)} class names are empty or contain line breaks or other unprintable characters: "
            f"{some(odd)}. Rename them."
        )
    folders = [
        f"{place}, which {fault}"
        for label, (name, place) in enumerate(zip(names, placed, strict=True))
        if name in PurePath(first.get(label, "")).parts and (fault := _unportable(name))
    ]
    if folders:
        raise DatasetError(
            f"{counted(len(folders), 'class folder')} cannot be held by every file system: {some(folders)}. Rename each."
        )
    alike: dict[str, list[str]] = {}
    for name, place in zip(names, placed, strict=True):
        alike.setdefault(_seen_as(name), []).append(place)
    equal = [" and ".join(places) for places in alike.values() if len(places) > 1]
    if equal:
        raise DatasetError(
            f"{len(equal)} class names are spelled in two ways that look alike: {some(equal)}. Rename one, or merge the two."
        )


def _seen_as(name: str) -> str:
    """A name with case, Unicode composition, spaces and invisible characters normalised: equal results look alike."""
    shown = "".join(letter for letter in unicodedata.normalize("NFC", name) if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFC", " ".join(shown.casefold().split()))


def is_one_line(name: str) -> bool:
    """Whether a name is free of control characters, Unicode line breaks and direction-changing characters."""
    return not any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") or letter in TURNING for letter in name)


def portable_fault(path: str, class_names: Collection[str]) -> str | None:
    """Why other file systems could not hold a photo with this path; None if they could. `check_names` checks the class folders.

    Of an absolute path, only the file's own name counts.
    """
    parts = PurePath(path).parts[-1:] if PurePath(path).is_absolute() else PurePath(path).parts
    fault = next((fault for part in parts if part not in class_names and (fault := _unportable(part))), None)
    return fault and f"with a name that not every file system can hold; rename it (it {fault})"


def _unportable(name: str) -> str | None:
    """Why some file systems cannot hold a file or folder of this name. Characters do not count: labels may have any."""
    if name != name.strip():
        return "begins or ends with a blank"
    if name.endswith(".") and name != "..":
        return "ends with a dot"
    return "is reserved by Windows" if RESERVED.fullmatch(name) else None


def path_fault(path: str) -> str | None:
    """Why the tables of a run cannot name a photo with this path; None if they can."""
    if printable(path) != path:
        return "with a name that is not UTF-8; rename it"
    if not is_one_line(path):
        return "with a line break or another unprintable character in its name; rename it"
    return None


def printable(path: str) -> str:
    """A path as valid UTF-8: undecodable bytes of the file name become question marks."""
    return path.encode("utf-8", "replace").decode()
