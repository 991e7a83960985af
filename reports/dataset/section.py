"""The data set: its numbers, class balance, photo sizes and examples."""

from __future__ import annotations

from typing import NamedTuple

from features.backbones.table import image_size
from features.building.contact_sheet import NAME
from features.building.info import class_balance
from features.cache.keys import cache_folder, key_parts
from features.cache.manifest import cache_key
from features.dataset.index import SPLITS, DatasetIndex, load_index
from features.runtime.errors import HeadhuntError
from reports.config import Run
from reports.dataset import class_counts, findings, photo_sizes, pictures
from reports.section import Block, PageSection, Picture, Table


class DatasetFacts(NamedTuple):
    """Classes, photos by split, sizes of the smallest and largest class, and the accuracy on `test` of always predicting the most
    frequent class of `train`; `by_class` has each class name with its photos by split."""

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


def section(run: Run) -> PageSection:
    """The whole section; UsageError if there is no index."""
    index = load_index(run)
    facts = collect(index)
    each = f"{facts.smallest} to {facts.largest}" if facts.smallest < facts.largest else f"{facts.smallest}"
    text = (
        f"{sum(facts.splits.values()):,} photos of {facts.classes} classes, {each} per class. Always predicting the most "
        f"frequent class is right for {100 * facts.most_frequent:.1f} % of the test photos."
    )
    crop = bool(getattr(run.dataset, "crop_to_bbox", False))
    blocks = [
        findings.block(run),
        _classes(index, facts),
        _sizes(run, index, crop),
        _examples(index, crop),
        *_views(run, index),
    ]
    return PageSection("dataset", "Data set", text, tables=[_balance(index, facts)], blocks=blocks)


def _balance(index: DatasetIndex, facts: DatasetFacts) -> Table:
    """Each split with its number of photos, and those of its smallest, median and largest class."""
    rows = []
    for split, found in class_balance(index).items():
        sizes = [found[which]["photos"] for which in ("smallest", "median", "largest")]
        ratio = f"{sizes[2] / sizes[0]:.1f}" if sizes[0] else "–"
        rows.append([split, f"{facts.splits[split]:,}", *(f"{size:,}" for size in sizes), ratio])
    columns = ["split", "photos", "smallest class", "median class", "largest class", "largest ÷ smallest"]
    return Table(columns, rows, {1, 2, 3, 4, 5})


def _classes(index: DatasetIndex, facts: DatasetFacts) -> Block:
    columns = ["class", *facts.splits]
    rows = [[name, *(f"{splits[split]:,}" for split in splits)] for name, splits in facts.by_class]
    text = "The largest class first." if facts.smallest < facts.largest else "All classes are the same size."
    if facts.classes > class_counts.BARS:
        text = f"The distribution of the {facts.classes} classes by number of photos."
    drawn = class_counts.draw(class_counts.collect(index))
    return Block(
        "Photos per class",
        text,
        {"class-counts": drawn},
        [Table(columns, rows, {1, 2, 3}, "All classes in numbers")],
    )


def _sizes(run: Run, index: DatasetIndex, crop: bool) -> Block:
    sizes = photo_sizes.collect(index, crop)
    what = "Cropped to their boxes, the photos" if crop else "The photos"
    (mean_width, mean_height), (width, height) = sizes.mean, sizes.median
    if sizes.edges:
        found = f"{what} have a mean size of {mean_width:.0f} × {mean_height:.0f} pixels, a median of {width:.0f} × {height:.0f}."
    else:
        found = f"{what} are all {width:g} × {height:g} pixels."
    text = (
        f"{found} Suggested input size: {sizes.suggested} × {sizes.suggested}, the median short side of {sizes.short:g} rounded "
        f"to a multiple of {photo_sizes.STRIDE}, at most {photo_sizes.LARGEST}. {_configured(run)}"
    )
    return Block("Photo sizes", text, {"photo-sizes": photo_sizes.draw(sizes)} if sizes.edges else {})


def _configured(run: Run) -> str:
    try:
        height, width = image_size(run.features)
    except HeadhuntError:  # a backbone that needs an explicit size, which is not set yet
        return ""
    return f"This run resizes them to {width} × {height}."


def _examples(index: DatasetIndex, crop: bool) -> Block:
    examples = pictures.collect(index, crop)
    shown = len(examples.pictures)
    text = "The first training photo of each class."
    if shown < examples.classes:
        text = f"The first training photo of {shown} of the {examples.classes} classes, evenly spaced."
    if examples.gone:
        are = "is" if examples.gone == 1 else "are"
        text += f" {examples.gone} of these {shown} photos {are} no longer on disk."
    return Block("Examples", text, pictures=examples.pictures)


def _views(run: Run, index: DatasetIndex) -> list[Block]:
    """The contact sheet of `headhunt features info`, if there is one for this configuration."""
    try:
        folder = cache_folder(run, cache_key(key_parts(run, index)))
    except HeadhuntError:
        return []
    uri = pictures.contact_sheet(folder / NAME)
    if uri is None:
        return []
    text = "One training photo, clean and as its cached copies: resized and augmented, before the backbone's preprocessing."
    caption = "headhunt features info --image N shows another photo."
    return [Block("What the backbone saw", text, pictures=[Picture(caption, uri)])]
