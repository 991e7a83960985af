"""Checks that names of classes and photos work in all later stages."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from features.dataset.index import Photo
from features.runtime.errors import DatasetError, some

TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the writing direction of the following text, so that a name would look like another one."""


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
