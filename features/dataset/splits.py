"""Splits the photos: train to train on, val to rank the trials, test to use once at the end."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from features.dataset.config import ColumnSplit, FractionSplit
from features.dataset.index import SPLITS, Photo
from features.runtime.errors import DatasetError, some


def split_photos(
    split: FractionSplit | ColumnSplit,
    photos: Sequence[Photo],
    names: Sequence[str],
    units: Sequence[Sequence[int]] = (),
    in_folders: bool = False,
) -> list[str]:
    """The split of each photo: stratified by class, a pure function of the split's seed and each class's photos in order.

    The photos of a unit (positions that must stay together) go to one split; the others are stratified around them.

    The data set's own split (`Photo.part`) is used if there is one; val or test, if it lacks them, are drawn from its training
    photos, see `drawn_shares`. Raises DatasetError when a split is empty, a class has no training photos, or a unit is in
    several of the data set's own splits; if these are folders (`in_folders`), a split by shares cannot replace them.
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
    own = any(photo.part for photo in photos)
    if not own:
        advice = "Too many photos belong together, as one group or identical photos. Add photos or groups."
    elif in_folders:
        advice = (
            "Put photos of every class into the folder `train`, or move the folders of classes without training photos out of "
            "the data set."
        )
    else:
        advice = "Add photos, or use a split by shares: `dataset.split: {train: 0.65, val: 0.20, test: 0.15}`."
    for part in SPLITS:
        if part not in parts:
            whose = "data set's own split" if own else "split"
            raise DatasetError(f"the {whose} has no {part} photos, but each split needs some. {advice}")
    trained = {photo.label for photo, part in zip(photos, parts, strict=True) if part == "train"}
    untrained = [repr(name) for label, name in enumerate(names) if label not in trained]
    if untrained:
        raise DatasetError(
            f"the split leaves {len(untrained)} of {len(names)} classes without training photos: {some(untrained)}. {advice}"
        )
    return parts


def drawn_shares(split: FractionSplit | ColumnSplit, parts: Collection[str | None]) -> dict[str, float]:
    """The shares by which training photos are divided if the data set's own split has these `parts`: train, and each of val and
    test that is missing. Without a split of its own, all photos are divided by the configured shares."""
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
    if units:  # what remains to be drawn
        sizes = np.array([_left(len(rows), wanted) for rows, wanted in zip(members, sizes, strict=True)])
    for rows, name, counts in zip(members, names, sizes.tolist(), strict=True):
        key = np.frombuffer(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], np.uint64)
        order = np.random.Generator(np.random.Philox(key=key)).permutation(len(rows))
        drawn = np.repeat(list(shares), counts)
        for place, part in zip(order, drawn, strict=True):
            result[rows[place]] = str(part)
    _fill_splits(photos, units, result, list(shares))
    return result


def _fill_splits(
    photos: Sequence[Photo], units: Sequence[Sequence[int]], result: list[str], splits: Sequence[str]
) -> None:
    """Moves photos if a class has no training photos or a split is empty, and neither has to be; changes `result` in place.

    One unit or photo goes to each split except train, so that the others hold every class; of these, the smallest that hold the
    classes that train lacks go there. Where several may go, those that are already there, then the smallest, then the first.
    """

    def untrained() -> set[int]:
        return set(holders) - {photo.label for photo, part in zip(photos, result, strict=True) if part == "train"}

    def place(number: int, part: str) -> None:
        for position in items[number]:
            result[position] = part

    together = {position for unit in units for position in unit}
    items = sorted([*units, *([position] for position in range(len(photos)) if position not in together)], key=len)
    classes = [{photos[position].label for position in item} for item in items]
    holders = Counter(label for own in classes for label in own)
    if set(result) == set(splits) and not untrained():
        return

    def chosen(parts: Sequence[str], left: Counter[int], taken: Sequence[int]) -> list[int] | None:
        """An item for each of these splits, if the others then still hold every class; `left` counts the holders of each."""
        if not parts:
            return list(taken)
        for number in sorted(range(len(items)), key=lambda number: result[items[number][0]] != parts[0]):
            if number not in taken and all(left[label] > 1 for label in classes[number]):
                found = chosen(parts[1:], left - Counter(classes[number]), [*taken, number])
                if found:
                    return found
        return None

    stay = chosen(splits[1:], holders, [])
    if stay is None:
        return
    for number, part in zip(stay, splits[1:], strict=True):
        place(number, part)
    missing = untrained()
    for number, own in enumerate(classes):
        if own & missing and number not in stay:
            place(number, "train")
            missing -= own


def _refuse_divided(photos: Sequence[Photo], units: Sequence[Sequence[int]]) -> None:
    """Raises DatasetError if photos that belong together are in several of the data set's own splits."""
    divided = [unit for unit in units if len({photos[position].part for position in unit}) > 1]
    if divided:
        unit = divided[0]
        one = photos[unit[0]]
        other = next(photos[position] for position in unit if photos[position].part != one.part)
        group = f" of group {one.group!r}" if one.group else ""
        raise DatasetError(
            f"{len(divided)} groups of photos are in several of the data set's own splits. In the first{group}, {one.path} is in "
            f"{one.part}, {other.path} in {other.part}. Fix the table, or let splits be drawn: "
            "`dataset.split: {train: 0.65, val: 0.20, test: 0.15}`."
        )


def _place_units(photos: Sequence[Photo], units: Sequence[Sequence[int]], sizes: npt.NDArray[np.int64]) -> list[int]:
    """The split of each unit: the largest unit first, into the split that lacks most photos of its classes; then see `_spread`.

    Reduces `sizes` (classes, splits) by the placed photos, below 0 if a unit is larger than wanted.
    """
    labels = np.array([photo.label for photo in photos], np.int64)  # maybe empty
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
    """Moves units so that each class is in each split, if it has enough units and photos; then so that no split is empty.

    Each time, the smallest unit moves whose classes all stay represented in its old split. Changes `chosen` (units,) in place.
    `own` (units, classes) counts the photos of each class; `singles` (classes,) those outside units, which can be drawn anywhere.
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
        """Mask of units whose classes all stay in their split without them."""
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
    """The number wanted in each split, adjusted to sum to `count`: any excess is taken from the largest splits."""
    left = np.maximum(wanted, 0)
    while left.sum() > count:
        left[left.argmax()] -= 1
    left[0] += count - left.sum()
    return left


def split_sizes(counts: Sequence[int], shares: Sequence[float]) -> npt.NDArray[np.int64]:
    """How many photos of each class go to each split: (classes, splits) int64.

    Rounding errors are carried over from class to class, so that the totals match the shares to within one photo. Every class has
    at least one photo in every split, if it has enough photos.
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
