"""Splits of photos that belong together: one is found whenever there is one, as brute force over small cases shows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from features.dataset.config import ColumnSplit, FractionSplit
from features.dataset.index import SPLITS, Photo
from features.dataset.splits import split_photos
from features.runtime.errors import DatasetError

pytestmark = pytest.mark.unit

Groups = list[dict[str, int]]
"""Photos of each class in each group."""


def split_groups(groups: Groups, split: FractionSplit | ColumnSplit, own: bool = False) -> list[str]:
    """The split of each group, of which the data set's own split, if any, has one more photo to test on."""
    names = sorted({name for group in groups for name in group})
    part = "train" if own else None
    photos, units = [], []
    for number, group in enumerate(groups):
        start = len(photos)
        for name, count in group.items():
            photos += [Photo(f"{len(photos)}", names.index(name), None, part, f"g{number}") for _ in range(count)]
        units.append(list(range(start, len(photos))))
    photos += [Photo("test", 0, None, "test")] * own
    parts = split_photos(split, photos, names, [unit for unit in units if len(unit) > 1])
    assert all(len({parts[position] for position in unit}) == 1 for unit in units)
    trained = {photo.label for photo, part in zip(photos, parts, strict=True) if part == "train"}
    assert trained == set(range(len(names)))
    assert set(parts) == set(SPLITS)
    return [parts[unit[0]] for unit in units]


def exists(groups: Groups, splits: tuple[str, ...]) -> bool:
    """Whether any assignment of the groups gives each class training photos and leaves no split empty."""
    names = {name for group in groups for name in group}
    return any(
        set(parts) == set(splits)
        and names == {name for group, part in zip(groups, parts, strict=True) if part == "train" for name in group}
        for parts in product(splits, repeat=len(groups))
    )


def random_groups(generator: np.random.Generator) -> Groups:
    names = "abcd"[: generator.integers(2, 5)]
    groups: Groups = []
    for _ in range(generator.integers(2, 7)):
        held = generator.choice(list(names), generator.integers(1, len(names) + 1), replace=False)
        groups.append({str(name): int(generator.integers(1, 6)) for name in held})
    return groups


@pytest.mark.parametrize("own", [False, True])
def test_a_split_is_found_whenever_there_is_one(own: bool) -> None:
    generator = np.random.default_rng(0)
    feasible = 0
    for case in range(400):
        groups = random_groups(generator)
        split = ColumnSplit(seed=case) if own else FractionSplit(train=0.65, val=0.2, test=0.15, seed=case)
        if exists(groups, ("train", "val") if own else SPLITS):
            feasible += 1
            split_groups(groups, split, own)
        else:
            with pytest.raises(DatasetError, match=r"belong together|se a split by shares"):
                split_groups(groups, split, own)
    assert 100 < feasible < 400


@pytest.mark.parametrize(
    ("groups", "last"),
    [
        ([*[{"car": 2, "van": 2}] * 4, {"car": 1, "tram": 3}], "train"),
        ([{"a": 5}, {"b": 2}, {"b": 1, "a": 2}], "train"),
    ],
)
def test_the_group_that_every_class_needs_is_trained_on(groups: Groups, last: str) -> None:
    assert split_groups(groups, FractionSplit(train=0.65, val=0.2, test=0.15))[-1] == last


def test_classes_that_are_only_in_one_group_with_too_few_others_are_told() -> None:
    groups = [{"a": 3}, {"b": 3}, {"c": 3}, {"c": 1}]
    with pytest.raises(DatasetError) as caught:
        split_groups(groups, FractionSplit(train=0.65, val=0.2, test=0.15))
    assert "belong together" in str(caught.value)
    assert "use a split by shares" not in str(caught.value)
