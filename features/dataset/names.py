"""Names of classes and photos: which of them every later stage can carry."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from features.dataset.index import Photo
from features.runtime.errors import DatasetError, some

TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of what follows: a name would be shown as another."""


def check_names(names: Sequence[str], photos: Sequence[Photo]) -> None:
    """Refuses what tables, labels.txt, terminals and other file systems could not carry or tell apart."""
    first = {photo.label: photo.path for photo in reversed(photos)}
    placed = [f"{name!r} (first photo: {first[label]})" for label, name in enumerate(names)]
    odd = [place for name, place in zip(names, placed, strict=True) if not is_one_line(name) or not name.strip()]
    if odd:
        raise DatasetError(
            f"{len(odd)} class names hold line breaks or other characters that cannot be printed, or nothing: "
            f"{some(odd)}. Rename them."
        )
    alike: dict[str, list[str]] = {}
    for name, place in zip(names, placed, strict=True):
        alike.setdefault(_seen_as(name), []).append(place)
    equal = [" and ".join(places) for places in alike.values() if len(places) > 1]
    if equal:
        raise DatasetError(
            f"{len(equal)} class names are written in two ways that look alike: {some(equal)}. Rename one, or make them one."
        )


def _seen_as(name: str) -> str:
    """A name without what an eye or another file system does not tell apart: case, composition, blanks, invisible letters."""
    shown = "".join(letter for letter in unicodedata.normalize("NFC", name) if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFC", " ".join(shown.casefold().split()))


def is_one_line(name: str) -> bool:
    """Whether a name has no control characters, no line breaks of any alphabet, and none that turns what follows around."""
    return not any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") or letter in TURNING for letter in name)
