"""The data set in numbers."""

from __future__ import annotations

from typing import NamedTuple

from features.dataset import SPLITS, DatasetIndex


class DatasetFacts(NamedTuple):
    """Classes, photos by split, the smallest and largest class, and the accuracy on `test` of always naming the class that is
    most frequent in `train`; `by_class` is each class name with its photos by split."""

    classes: int
    splits: dict[str, int]
    smallest: int
    largest: int
    most_frequent: float
    by_class: list[tuple[str, dict[str, int]]]


def collect(index: DatasetIndex) -> DatasetFacts:
    """Counts from the index."""
    counts = index.table["label"].value_counts()
    common = index.of_split("train")["label"].mode()[0]
    each = {split: index.of_split(split)["label"].value_counts() for split in SPLITS}
    return DatasetFacts(
        len(index.class_names),
        {split: len(index.of_split(split)) for split in SPLITS},
        int(counts.min()),
        int(counts.max()),
        float((index.of_split("test")["label"] == common).mean()),
        [
            (name, {split: int(each[split].get(label, 0)) for split in SPLITS})
            for label, name in enumerate(index.class_names)
        ],
    )
