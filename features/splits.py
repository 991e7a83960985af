"""Which photos are trained on, which rank the trials, and which are touched once, at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from features.config import ColumnSplit, FractionSplit
from features.dataset import SPLITS, Photo
from features.errors import DatasetError


def split_photos(
    split: FractionSplit | ColumnSplit,
    photos: Sequence[Photo],
    names: Sequence[str],
    units: Sequence[Sequence[int]] = (),
) -> list[str]:
    """The split of each photo: stratified by class, a pure function of the split's seed and each class's photos in order.

    Photos of one unit (positions that are not to be divided) are drawn into one split; the others are stratified around them.

    Where photos have a split of their own (`Photo.part`), that is it; of val and test, those that it lacks are drawn from its
    training photos, see `drawn_shares`. Raises DatasetError when a split stays empty, or a class has no training photos.
    """
    shares = drawn_shares(split, {photo.part for photo in photos})
    parts = [photo.part or "train" for photo in photos]
    if len(shares) > 1:
        inner = [position for position, part in enumerate(parts) if part == "train"]
        place = {position: number for number, position in enumerate(inner)}
        together = [[place[position] for position in unit if position in place] for unit in units]
        drawn = _stratify(
            [photos[i] for i in inner], names, shares, split.seed, [one for one in together if len(one) > 1]
        )
        for position, part in zip(inner, drawn, strict=True):
            parts[position] = part
    for part in SPLITS:
        if part not in parts:
            raise DatasetError(
                f"the data set's own split leaves {part} without photos. Use a split by shares instead: "
                "`dataset.split: {train: 0.65, val: 0.20, test: 0.15}`."
            )
    trained = {photo.label for photo, part in zip(photos, parts, strict=True) if part == "train"}
    untrained = [name for label, name in enumerate(names) if label not in trained]
    if untrained:
        raise DatasetError(
            f"the split leaves {len(untrained)} of {len(names)} classes without training photos, the "
            f"first is {untrained[0]!r}. Add photos, or use a split by shares."
        )
    return parts


def drawn_shares(split: FractionSplit | ColumnSplit, parts: Collection[str | None]) -> dict[str, float]:
    """The shares in which training photos are divided, where the data set's own split names these parts: train, and those of val
    and test that are not among them. Without own parts all photos are training photos, and the shares the configuration's."""
    missing = {part: float(getattr(split, part)) for part in SPLITS[1:] if part not in parts}
    if isinstance(split, ColumnSplit):
        return {"train": 1 - sum(missing.values()), **missing}
    whole = 1.0 if len(missing) == 2 else split.train + sum(missing.values())
    return {part: share / whole for part, share in {"train": split.train, **missing}.items()}


def _stratify(
    photos: Sequence[Photo], names: Sequence[str], shares: dict[str, float], seed: int, units: Sequence[Sequence[int]]
) -> list[str]:
    counts = np.bincount([photo.label for photo in photos], minlength=len(names))
    sizes = split_sizes(counts.tolist(), list(shares.values()))
    result = [""] * len(photos)
    for unit, part in zip(units, _place_units(photos, units, sizes), strict=True):
        for position in unit:
            result[position] = list(shares)[part]
    members: list[list[int]] = [[] for _ in names]
    for position, photo in enumerate(photos):
        if not result[position]:
            members[photo.label].append(position)
    if units:  # what is left to be drawn
        sizes = np.array([_left(len(rows), wanted) for rows, wanted in zip(members, sizes, strict=True)])
    for rows, name, counts in zip(members, names, sizes.tolist(), strict=True):
        key = np.frombuffer(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], np.uint64)
        order = np.random.Generator(np.random.Philox(key=key)).permutation(len(rows))
        drawn = np.repeat(list(shares), counts)
        for place, part in zip(order, drawn, strict=True):
            result[rows[place]] = str(part)
    return result


def _place_units(photos: Sequence[Photo], units: Sequence[Sequence[int]], sizes: npt.NDArray[np.int64]) -> list[int]:
    """The split of each unit, the largest first into the one that lacks most of its classes.

    `sizes` (classes, splits) are reduced by what is placed, below 0 where a unit is larger than what is wanted.
    """
    chosen = [0] * len(units)
    for number in sorted(range(len(units)), key=lambda number: (-len(units[number]), number)):
        own = np.bincount([photos[position].label for position in units[number]], minlength=len(sizes))
        lacking = (own[:, None] * sizes).sum(0)
        chosen[number] = int(lacking.argmax())
        sizes[:, chosen[number]] -= own
    return chosen


def _left(count: int, wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What is wanted in each split, of as many photos as there are: what one has too many, the largest others lack."""
    left = np.maximum(wanted, 0)
    while left.sum() > count:
        left[left.argmax()] -= 1
    left[0] += count - left.sum()
    return left


def split_sizes(counts: Sequence[int], shares: Sequence[float]) -> npt.NDArray[np.int64]:
    """How many photos of each class go to each split: (classes, splits).

    Rounding errors are carried from class to class, so that the totals meet the shares within one photo; every class has at
    least one photo in every split, as far as it has that many.
    """
    sizes = np.zeros((len(counts), len(shares)), np.int64)
    carry = np.zeros(len(shares))
    for row, count in zip(sizes, counts, strict=True):
        target = count * np.asarray(shares) + carry
        row[:] = np.maximum(np.floor(target), 1)
        while row.sum() < count:
            row[np.argmax(target - row)] += 1
        while row.sum() > count:
            row[np.argmin(np.where(row > (1 if count >= len(shares) else 0), target - row, np.inf))] -= 1
        carry = target - row
    return sizes
