"""Which photos are trained on, which rank the trials, and which are touched once, at the end."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from features.dataset.config import ColumnSplit, FractionSplit
from features.dataset.index import SPLITS, Photo
from features.runtime.errors import DatasetError


def split_photos(
    split: FractionSplit | ColumnSplit,
    photos: Sequence[Photo],
    names: Sequence[str],
    units: Sequence[Sequence[int]] = (),
) -> list[str]:
    """The split of each photo: stratified by class, a pure function of the split's seed and each class's photos in order.

    Photos of one unit (positions that are not to be divided) are drawn into one split; the others are stratified around them.

    Where photos have a split of their own (`Photo.part`), that is it; of val and test, those that it lacks are drawn from its
    training photos, see `drawn_shares`. Raises DatasetError when a split stays empty, a class has no training photos, or a
    unit lies in several of the data set's own splits.
    """
    _refuse_divided(photos, units)
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
            own = any(photo.part for photo in photos)
            raise DatasetError(
                f"the data set's own split leaves {part} without photos. Use a split by shares instead: "
                "`dataset.split: {train: 0.65, val: 0.20, test: 0.15}`."
                if own
                else f"the split leaves {part} without photos: too many belong together, by group or equal bytes, to be in "
                "three splits. Add photos, or groups."
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


def _refuse_divided(photos: Sequence[Photo], units: Sequence[Sequence[int]]) -> None:
    """DatasetError where photos that belong together are in several of the data set's own splits."""
    divided = [unit for unit in units if len({photos[position].part for position in unit}) > 1]
    if divided:
        unit = divided[0]
        one = photos[unit[0]]
        other = next(photos[position] for position in unit if photos[position].part != one.part)
        group = f" of group {one.group!r}" if one.group else ""
        raise DatasetError(
            f"{len(divided)} groups of photos lie in several of the data set's own splits, the first{group}: {one.path} is in "
            f"{one.part}, {other.path} in {other.part}. Correct the table, or let splits be drawn: "
            "`dataset.split: {train: 0.65, val: 0.20, test: 0.15}`."
        )


def _place_units(photos: Sequence[Photo], units: Sequence[Sequence[int]], sizes: npt.NDArray[np.int64]) -> list[int]:
    """The split of each unit, the largest first into the one that lacks most of its classes; then see `_spread`.

    `sizes` (classes, splits) are reduced by what is placed, below 0 where a unit is larger than what is wanted.
    """
    labels = np.array([photo.label for photo in photos])
    own = np.array([np.bincount(labels[list(unit)], minlength=len(sizes)) for unit in units], np.int64)
    own = own.reshape(len(units), len(sizes))
    chosen = np.zeros(len(units), np.int64)
    wanted = sizes.copy()
    for number in sorted(range(len(units)), key=lambda number: (-len(units[number]), number)):
        chosen[number] = int((own[number][:, None] * wanted).sum(0).argmax())
        wanted[:, chosen[number]] -= own[number]
    _spread(chosen, own, np.bincount(labels, minlength=len(sizes)) - own.sum(0), sizes.shape[1])
    for number, part in enumerate(chosen):
        sizes[:, part] -= own[number]
    return chosen.tolist()


def _spread(
    chosen: npt.NDArray[np.int64], own: npt.NDArray[np.int64], singles: npt.NDArray[np.int64], splits: int
) -> None:
    """Moves units so that each class is in each split, as far as it has that many; then so that no split is empty.

    The smallest unit moves that leaves none of its classes absent from where it was. `chosen` (units,) is changed; `own` (units,
    classes) are photos of each class, `singles` (classes,) those outside units, which can be drawn anywhere.
    """
    sizes = own.sum(1)
    placed = np.stack([own[chosen == part].sum(0) for part in range(splits)], 1)

    def move(movable: npt.NDArray[np.bool_], part: int) -> None:
        if movable.any():
            number = int(np.where(movable, sizes, sizes.max() + 1).argmin())
            placed[:, chosen[number]] -= own[number]
            placed[:, part] += own[number]
            chosen[number] = part

    def stays() -> npt.NDArray[np.bool_]:
        """Units all of whose classes stay in their split without them."""
        kept: npt.NDArray[np.bool_] = ((placed.T[chosen] > own) | (own == 0)).all(1)
        return kept

    for label, part in np.argwhere(placed == 0):
        missing = placed[label] == 0
        if missing[part] and singles[label] < missing.sum():
            move((own[:, label] > 0) & stays(), part)
    for part in range(splits):
        if not singles.any() and not placed[:, part].any():
            held = placed.sum(0)[chosen] > sizes
            move(held & ((chosen != 0) | stays()), part)


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
