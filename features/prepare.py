"""`features prepare`: read the data set's own files, look at every photo, split, and write the index."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track

from features.atomic import make_folder
from features.command import log, relative
from features.config import CsvDataset, FeaturesRun, FolderDataset, FractionSplit, StanfordCars, ToyCars
from features.dataset import (
    BOX,
    COLUMNS,
    SPLITS,
    DatasetIndex,
    Photo,
    Source,
    images_root,
    index_path,
    load_index,
    write_index,
)
from features.errors import DatasetError, HeadhuntError
from features.folders import read_folders
from features.images import Inspected, inspect_image
from features.stanford_cars import read_stanford_cars
from features.tables import read_table
from features.toy_cars import write_toy_cars

SHOWN = 5
"""How many photos of each kind of fault a message lists."""

MINIMUM = 3
"""Photos that a class needs: one for each split."""


def prepare(run: FeaturesRun, materialize: Literal["link", "copy"] | None = None) -> dict[str, Any]:
    """Writes `dataset/index.csv`, and with `materialize` the class folders; returns the `--json` object.

    Raises DatasetError listing every fault that was found in the photos, or classes that are too small.
    """
    make_folder(run.workdir)
    source = _read(run)
    if not source.photos:
        raise DatasetError(f"there are no images below {source.root}. Correct the `dataset` section.")
    photos, found = _inspect(run, source)
    kept, names = _dense(run, photos, source.class_names)
    _check_sizes(kept, names)
    index = DatasetIndex(_table(run, kept, names, found), names, source.root)
    write_index(run, index, len(source.photos) - len(kept))
    if materialize:
        _materialize(index, index_path(run).parent, materialize)
    sizes = index.table["split"].value_counts()
    return {
        "index": relative(index_path(run)),
        "images": len(index.table),
        "classes": len(names),
        "splits": {split: int(sizes.get(split, 0)) for split in SPLITS},
        "skipped": len(source.photos) - len(kept),
    }


def _read(run: FeaturesRun) -> Source:
    dataset = run.dataset
    match dataset:
        case StanfordCars():
            return read_stanford_cars(dataset)
        case FolderDataset():
            return read_folders(dataset)
        case CsvDataset():
            return read_table(dataset)
        case ToyCars():
            folder = images_root(run)
            write_toy_cars(dataset, folder)
            return read_stanford_cars(StanfordCars(root=folder, split=dataset.split))


def _inspect(run: FeaturesRun, source: Source) -> tuple[list[Photo], dict[str, Inspected]]:
    """Looks at every photo; gives those without a fault. Faults are an error, or skipped and counted."""
    known = _known_sizes(run)
    paths = [photo.path for photo in source.photos]

    def inspect(path: str) -> Inspected:
        return inspect_image(source.root / path, run.dataset.max_pixels, known)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        looking = pool.map(inspect, paths)
        found = dict(
            zip(paths, track(looking, "checking photos", len(paths), console=log, transient=True), strict=True)
        )
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise DatasetError(
            f"{len(twice)} photos are listed more than once, the first is {twice[0]}. List each photo once."
        )
    faults = {path: inspected.fault for path, inspected in found.items() if inspected.fault}
    if faults:
        by_kind: dict[str, list[str]] = {}
        for path, fault in faults.items():
            by_kind.setdefault(fault.partition(" (")[0], []).append(path)
        counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in by_kind.items())
        if run.dataset.on_missing == "error":
            lines = [
                f"  {kind}: {', '.join(paths[:SHOWN])}{f' and {len(paths) - SHOWN} more' if len(paths) > SHOWN else ''}"
                for kind, paths in by_kind.items()
            ]
            raise DatasetError(
                "\n".join(
                    [f"{len(faults)} of {len(paths)} photos below {source.root} cannot be used ({counts}):", *lines]
                )
                + "\nMend them, or leave them out with `dataset.on_missing: skip`."
            )
        log.print(f"Skipped {len(faults)} of {len(paths)} photos: {counts}.", style="yellow")
    return [photo for photo in source.photos if photo.path not in faults], found


def _known_sizes(run: FeaturesRun) -> dict[str, tuple[int, int]]:
    try:
        table = load_index(run).table
    except HeadhuntError:  # there is no index yet, or another one
        return {}
    return dict(zip(table["sha256"], zip(table["width"].tolist(), table["height"].tolist(), strict=True), strict=True))


def _dense(run: FeaturesRun, photos: list[Photo], names: tuple[str, ...]) -> tuple[list[Photo], tuple[str, ...]]:
    """With `on_missing: skip`, drops classes that have no photo left and numbers the others anew, in order."""
    left = sorted({photo.label for photo in photos})
    if len(left) == len(names) or run.dataset.on_missing == "error" or not left:
        return photos, names
    log.print(
        f"{len(names) - len(left)} of {len(names)} classes have no photo and are left out; the others are numbered anew.",
        style="yellow",
    )
    number = {label: position for position, label in enumerate(left)}
    renumbered = [Photo(photo.path, number[photo.label], photo.box, photo.part) for photo in photos]
    return renumbered, tuple(names[label] for label in left)


def _check_sizes(photos: Sequence[Photo], names: tuple[str, ...]) -> None:
    if not photos:
        raise DatasetError("none of the photos can be used. Check `dataset.root`.")
    if len(names) < 2:
        raise DatasetError(f"a classifier needs at least two classes, but there is only {names[0]!r}.")
    counts = Counter(photo.label for photo in photos)
    small = [f"{name!r} ({counts[label]})" for label, name in enumerate(names) if counts[label] < MINIMUM]
    if small:
        shown = ", ".join(small[:SHOWN]) + (f" and {len(small) - SHOWN} more" if len(small) > SHOWN else "")
        raise DatasetError(
            f"{len(small)} classes have fewer than three photos, and each split needs one: {shown}. Add photos or remove "
            "the class."
        )


def _table(
    run: FeaturesRun, photos: Sequence[Photo], names: tuple[str, ...], found: dict[str, Inspected]
) -> pd.DataFrame:
    splits = split_photos(run, photos, names)
    rows = []
    for photo, split in zip(photos, splits, strict=True):
        seen = found[photo.path]
        box = photo.box or (None,) * 4
        rows.append((photo.path, photo.label, names[photo.label], split, *box, seen.width, seen.height, seen.sha256))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(BOX, "Int64"))


def split_photos(run: FeaturesRun, photos: Sequence[Photo], names: tuple[str, ...]) -> list[str]:
    """The split of each photo: stratified by class, a pure function of the split's seed and each class's photos in order."""
    split = run.dataset.split
    if isinstance(split, FractionSplit):
        return _stratify(photos, names, {"train": split.train, "val": split.val, "test": split.test}, split.seed)
    parts = [photo.part or "train" for photo in photos]
    if "val" not in parts:
        inner = [position for position, part in enumerate(parts) if part == "train"]
        drawn = _stratify([photos[i] for i in inner], names, {"train": 1 - split.val, "val": split.val}, split.seed)
        for position, part in zip(inner, drawn, strict=True):
            parts[position] = part
    trained = {photo.label for photo, part in zip(photos, parts, strict=True) if part == "train"}
    for part in SPLITS:
        if part not in parts:
            raise DatasetError(
                f"the split by {split.column!r} leaves {part} without photos. Use a split by shares instead."
            )
    if len(trained) < len(names):
        untrained = [name for label, name in enumerate(names) if label not in trained]
        raise DatasetError(
            f"the split by {split.column!r} leaves {len(untrained)} classes without training photos: {untrained[0]!r}, …."
        )
    return parts


def _stratify(photos: Sequence[Photo], names: tuple[str, ...], shares: dict[str, float], seed: int) -> list[str]:
    members: list[list[int]] = [[] for _ in names]
    for position, photo in enumerate(photos):
        members[photo.label].append(position)
    sizes = split_sizes([len(rows) for rows in members], list(shares.values()))
    result = [""] * len(photos)
    for rows, name, counts in zip(members, names, sizes.tolist(), strict=True):
        key = np.frombuffer(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], np.uint64)
        order = np.random.Generator(np.random.Philox(key=key)).permutation(len(rows))
        drawn = np.repeat(list(shares), counts)
        for place, part in zip(order, drawn, strict=True):
            result[rows[place]] = str(part)
    return result


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


def _materialize(index: DatasetIndex, folder: Path, how: Literal["link", "copy"]) -> None:
    """Lays out `train/class_001/…`, `val/…`, `test/…`, and reads the labels back as Keras would.

    Class folders are zero-padded, since Keras's image_dataset_from_directory numbers classes by sorted folder name.
    """
    digits = max(3, len(str(len(index.class_names))))
    for split in SPLITS:
        fresh = folder / f".{split}.tmp"
        shutil.rmtree(fresh, ignore_errors=True)
        for label in range(len(index.class_names)):
            make_folder(fresh / f"class_{label + 1:0{digits}d}")
        rows = index.of_split(split)
        for number, path, label in zip(rows.index.tolist(), rows["path"], rows["label"].tolist(), strict=True):
            target = fresh / f"class_{label + 1:0{digits}d}" / f"{number:06d}_{Path(path).name}"
            source = index.root / path
            if how == "link":
                target.symlink_to(source)
            else:
                shutil.copyfile(source, target)
        _read_back(index, fresh)
        shutil.rmtree(folder / split, ignore_errors=True)
        fresh.rename(folder / split)


def _read_back(index: DatasetIndex, folder: Path) -> None:
    labels = index.table["label"]
    for number, name in enumerate(sorted(path.name for path in folder.iterdir())):
        for file in (folder / name).iterdir():
            expected = int(labels.iloc[int(file.name.partition("_")[0])])
            if expected != number:
                raise DatasetError(
                    f"{file}: the folder's place among the sorted folders is {number}, but the label is {expected}."
                )
