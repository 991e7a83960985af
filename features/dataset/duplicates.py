"""Identical photos: which of them to keep, and which photos must stay in the same split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from features.dataset.index import SPLITS, Photo
from features.runtime.errors import DatasetError, some
from features.runtime.log import counted, log


def resolve_duplicates(
    photos: list[Photo], sha256: Mapping[str, str], rule: Literal["error", "drop", "keep"]
) -> list[Photo]:
    """The photos to keep according to `dataset.on_duplicate`; logs the number of identical ones.

    `sha256` are the digests by path. Identical photos with one label, in one split or with splits still to be drawn, are not an
    error: they stay together (see `units`). Raises DatasetError listing those with two labels or in two of the data set's own
    splits.
    """
    copies = [same for same in _by_digest(photos, sha256) if len(same) > 1]
    if not copies:
        return photos
    mixed = [same for same in copies if len({photo.label for photo in same}) > 1]
    alike = [same for same in copies if len({photo.label for photo in same}) == 1]
    across = [same for same in alike if len({photo.part for photo in same}) > 1]
    if rule == "error" and (mixed or across):
        found = [*_listed(mixed, "with two labels"), *_listed(across, "in two splits")]
        raise DatasetError(
            "\n".join(
                [
                    *found,
                    "Fix them, or set `dataset.on_duplicate`: drop leaves them out, keep keeps them in one split.",
                ]
            )
        )
    count = sum(len(same) - 1 for same in copies)
    if rule != "drop":
        log.print(
            f"{counted(count, 'photo is', 'photos are')} identical to others; identical photos stay in the same split.",
            style="yellow",
        )
        return _in_one_split(photos, across + mixed)
    gone = {photo.path for same in mixed for photo in same}
    gone |= {photo.path for same in alike for photo in sorted(same, key=_last_split_first)[1:]}
    log.print(f"Left out {counted(len(gone), 'photo that is', 'photos that are')} identical to others.", style="yellow")
    return [photo for photo in photos if photo.path not in gone]


def units(photos: Sequence[Photo], sha256: Mapping[str, str]) -> list[list[int]]:
    """Positions of photos that must stay in the same split because they are identical or of one group; only units of two or
    more, ordered by first position."""
    parent = list(range(len(photos)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    first: dict[tuple[str, str], int] = {}
    for position, photo in enumerate(photos):
        keys = [("bytes", sha256[photo.path])] + ([("group", photo.group)] if photo.group else [])
        for key in keys:
            one, other = sorted((root(position), root(first.setdefault(key, position))))
            parent[other] = one
    found: dict[int, list[int]] = {}
    for position in range(len(photos)):
        found.setdefault(root(position), []).append(position)
    return [members for members in found.values() if len(members) > 1]


def _by_digest(photos: Sequence[Photo], sha256: Mapping[str, str]) -> list[list[Photo]]:
    found: dict[str, list[Photo]] = {}
    for photo in photos:
        found.setdefault(sha256[photo.path], []).append(photo)
    return list(found.values())


def _last_split_first(photo: Photo) -> int:
    """Sort key: test before val before train, so that the test photo of identical ones is kept."""
    return -SPLITS.index(photo.part) if photo.part in SPLITS else 0


def _in_one_split(photos: list[Photo], across: list[list[Photo]]) -> list[Photo]:
    """Moves identical photos in several of the data set's own splits into one (train before val before test), so that no training
    photo is tested on."""
    where: dict[str, str | None] = {}
    for same in across:
        part = max(same, key=_last_split_first).part
        where |= {photo.path: part for photo in same}
    return [replace(photo, part=where.get(photo.path, photo.part)) for photo in photos]


def _listed(copies: list[list[Photo]], what: str) -> list[str]:
    if not copies:
        return []
    shown = some([some([photo.path for photo in same], " = ") for same in copies], "; ")
    return [f"identical photos {what}: {shown}."]
