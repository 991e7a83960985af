"""`features prepare`: read the data set's own files, check every photo, split, and write the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from features.dataset.class_folders import lay_out
from features.dataset.config import ColumnSplit, CsvDataset, DatasetRun, FolderDataset, StanfordCars, ToyCars
from features.dataset.duplicates import resolve_duplicates, units
from features.dataset.images import HELD_BITS, Inspected, inspect_image
from features.dataset.index import (
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
from features.dataset.names import check_names, path_fault, portable_fault, printable
from features.dataset.notes import collect_notes, note
from features.dataset.readers.folders import read_folders
from features.dataset.readers.stanford_cars import read_stanford_cars
from features.dataset.readers.tables import read_table
from features.dataset.readers.toy_cars import write_toy_cars
from features.dataset.skipped import write_skipped
from features.dataset.splits import drawn_shares, split_photos
from features.runtime.atomic import make_folder
from features.runtime.errors import DatasetError, HeadhuntError, UsageError, some
from features.runtime.log import counted, log, relative
from features.runtime.workers.threads import in_threads

MINIMUM = 3
"""Photos that a class needs: one for each split."""


def prepare(run: DatasetRun, materialize: Literal["link", "copy"] | None = None) -> dict[str, Any]:
    """Writes `dataset/index.csv`, `skipped.csv` and `prepared.json` (with notes about the data); with `materialize` also the
    class folders. Returns the `--json` object.

    Raises DatasetError listing all photos that cannot be used, or the classes that are too small.
    """
    make_folder(run.workdir)
    with collect_notes() as notes:
        source = _read(run)
        if not source.photos:
            raise DatasetError(f"there are no photos below {source.root}. Fix the `dataset` section.")
        photos, found, reasons = _inspect(run, source)
        sha256 = {path: inspected.sha256 for path, inspected in found.items()}
        single = resolve_duplicates(photos, sha256, run.dataset.on_duplicate)
        reasons |= _gone(photos, single, "identical to another photo (dataset.on_duplicate)")
        photos = _without_small(run, single, source.class_names)
        reasons |= _gone(
            single, photos, f"in a class with fewer than {run.dataset.min_per_class} photos (dataset.min_per_class)"
        )
        photos, names = _dense(run, photos, source.class_names)
        _check_sizes(photos, names)
        check_names(names, photos)
        index = DatasetIndex(_table(run, photos, names, found), names, source.root)
    path, skipped = index_path(run), len(source.photos) - len(photos)
    before = path.read_bytes() if path.exists() else None
    write_skipped(run.workdir, reasons)
    write_index(run, index, skipped, notes)
    if materialize:
        lay_out(index, path.parent, materialize)
    elif (path.parent / "train").is_dir() and before != path.read_bytes():
        log.print(
            f"The class folders in {relative(path.parent)} are from an earlier index. Update them with "
            "`--materialize`.",
            style="yellow",
        )
    sizes = Counter(index.table["split"])
    return {
        "index": relative(path),
        "images": len(index.table),
        "classes": len(names),
        "splits": {split: sizes[split] for split in SPLITS},
        "skipped": skipped,
    }


def _read(run: DatasetRun) -> Source:
    dataset = run.dataset
    if (
        isinstance(dataset, StanfordCars | ToyCars)
        and isinstance(dataset.split, ColumnSplit)
        and dataset.split.column != "test"
    ):
        raise UsageError(
            f"dataset.split.column: received {dataset.split.column!r}; the devkit's own split is its field `test`. Write "
            "`split: {column: test}`."
        )
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


def _inspect(run: DatasetRun, source: Source) -> tuple[list[Photo], dict[str, Inspected], dict[str, str]]:
    """Checks every photo. Returns the usable ones, the results by path, and the reasons of the others by path; these are skipped,
    or an error, as `dataset.on_missing` says."""
    known, class_names = _known_sizes(run), frozenset(source.class_names)
    paths = [photo.path for photo in source.photos]
    _refuse_twice(source)
    within = run.dataset.within.resolve() if run.dataset.within else None

    def inspect(path: str) -> Inspected:
        if fault := path_fault(path) or portable_fault(path, class_names):
            return Inspected(fault)
        if within and _is_outside(source.root / path, within):
            return Inspected(f"outside the folder {within} (dataset.within)")
        inspected = inspect_image(source.root / path, run.dataset.max_pixels, known)
        other = source.root / path.replace("\\", "/")
        if inspected.fault == "missing" and other.is_file() and not (within and _is_outside(other, within)):
            return Inspected("listed with \\ between folders, but there with /; write / in the table")
        return inspected

    found = dict(zip(paths, in_threads(inspect, paths, "checking photos"), strict=True))
    faults = {path: inspected.fault for path, inspected in found.items() if inspected.fault}
    if getattr(run.dataset, "crop_to_bbox", False):
        faults |= _boxes_outside([photo for photo in source.photos if photo.path not in faults], found)
    if faults:
        by_kind: dict[str, list[str]] = {}
        for path, fault in faults.items():
            kind, opening, detail = fault.partition(" (")
            by_kind.setdefault(kind, []).append(printable(path) + opening + detail)
        counts = ", ".join(f"{len(paths)} {kind}" for kind, paths in by_kind.items())
        if run.dataset.on_missing == "error":
            lines = [f"  {kind}: {some(paths)}" for kind, paths in by_kind.items()]
            raise DatasetError(
                "\n".join(
                    [f"{len(faults)} of {len(paths)} photos below {source.root} cannot be used ({counts}):", *lines]
                )
                + "\nFix them, or leave them out with `dataset.on_missing: skip`."
            )
        log.print(f"Skipped {len(faults)} of {len(paths)} photos: {counts}.", style="yellow")
    animated = [path for path, inspected in found.items() if inspected.animated and path not in faults]
    if animated:
        note(f"{len(animated)} photos have several frames or pages; only the first is used: {some(animated)}.")
    for bits in HELD_BITS:
        dark = [path for path, inspected in found.items() if inspected.held_bits == bits and path not in faults]
        if dark:
            how_many = f"{len(dark)} of {len(paths)} photos"
            note(
                f"Read as {bits}-bit, because all their 16-bit values are below {1 << bits}: {how_many}, {some(dark)}."
            )
    reasons = {printable(path): fault for path, fault in faults.items()}
    return [photo for photo in source.photos if photo.path not in faults], found, reasons


def _refuse_twice(source: Source) -> None:
    """Raises DatasetError if a path is listed more than once, with the labels if they differ."""
    listed: dict[str, list[str]] = {}
    for photo in source.photos:
        listed.setdefault(photo.path, []).append(source.class_names[photo.label])
    twice = {path: sorted(set(names)) for path, names in listed.items() if len(names) > 1}
    if differing := [f"{path} ({' and '.join(map(repr, names))})" for path, names in twice.items() if len(names) > 1]:
        are = counted(len(differing), "photo is", "photos are")
        raise DatasetError(
            f"{are} listed under different labels: {some(differing)}. List each photo once, with one label."
        )
    if twice:
        are = counted(len(twice), "photo is", "photos are")
        raise DatasetError(f"{are} listed more than once: {some(list(twice))}. List each photo once.")


def _is_outside(path: Path, folder: Path) -> bool:
    try:
        return not path.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a link to itself, which `inspect_image` names
        return False


def _gone(before: Sequence[Photo], after: Sequence[Photo], reason: str) -> dict[str, str]:
    """The reason by path, for the photos in `before` but not in `after`."""
    left = {photo.path for photo in after}
    return {photo.path: reason for photo in before if photo.path not in left}


def _boxes_outside(photos: Sequence[Photo], found: dict[str, Inspected]) -> dict[str, str]:
    """Faults by path of photos whose bounding box is wholly outside; notes missing boxes and boxes that extend past the edge."""
    outside, over = {}, []
    whole = [photo.path for photo in photos if not photo.box]
    if whole:
        note(
            f"`dataset.crop_to_bbox` is set, but {len(whole)} of {counted(len(photos), 'photo')} have no bounding box and are "
            f"used whole: {some(whole)}."
        )
    for photo in photos:
        if photo.box:
            (x1, y1, x2, y2), size = photo.box, found[photo.path]
            if x1 > size.width or y1 > size.height or x2 < 1 or y2 < 1 or x1 > x2 or y1 > y2:
                outside[photo.path] = (
                    "with the bounding box outside; if the photos are already cropped, set `dataset.crop_to_bbox: false`"
                )
            elif x2 > size.width or y2 > size.height or x1 < 1 or y1 < 1:
                over.append(photo.path)
    if over:
        note(
            f"{len(over)} bounding boxes extend past the edge of their photo and are clipped: {some(over)}. If the photos "
            "are already cropped, set `dataset.crop_to_bbox: false`."
        )
    return outside


def _known_sizes(run: DatasetRun) -> dict[str, tuple[int, int]]:
    try:
        table = load_index(run).table
    except HeadhuntError:  # no index yet, or one of another configuration
        return {}
    return dict(zip(table["sha256"], zip(table["width"].tolist(), table["height"].tolist(), strict=True), strict=True))


def _dense(run: DatasetRun, photos: list[Photo], names: tuple[str, ...]) -> tuple[list[Photo], tuple[str, ...]]:
    """Drops classes without photos, if the configuration allows photos to be left out, and renumbers the others in order."""
    left = sorted({photo.label for photo in photos})
    may_go = run.dataset.on_missing == "skip" or run.dataset.min_per_class or run.dataset.on_duplicate == "drop"
    if len(left) == len(names) or not may_go or not left:
        return photos, names
    note(f"{len(names) - len(left)} of {len(names)} classes have no photo and are left out; the others are renumbered.")
    number = {label: position for position, label in enumerate(left)}
    renumbered = [replace(photo, label=number[photo.label]) for photo in photos]
    return renumbered, tuple(names[label] for label in left)


def _without_small(run: DatasetRun, photos: list[Photo], names: tuple[str, ...]) -> list[Photo]:
    """The photos of classes with at least `dataset.min_per_class` photos."""
    counts = Counter(photo.label for photo in photos)
    small = [label for label in sorted(counts) if counts[label] < run.dataset.min_per_class]
    if small:
        listed = some([f"{names[label]!r} ({counts[label]})" for label in small])
        log.print(
            f"Left out {counted(len(small), 'class', 'classes')} with fewer than {run.dataset.min_per_class} photos "
            f"(dataset.min_per_class): {listed}.",
            style="yellow",
        )
    return [photo for photo in photos if photo.label not in small]


def _check_sizes(photos: Sequence[Photo], names: tuple[str, ...]) -> None:
    if not photos:
        raise DatasetError("none of the photos can be used. Check `dataset.root`.")
    if len(names) < 2:
        raise DatasetError(f"a classifier needs at least two classes, but there is only {names[0]!r}.")
    counts = Counter(photo.label for photo in photos)
    small = [f"{name!r} ({counts[label]})" for label, name in enumerate(names) if counts[label] < MINIMUM]
    if small:
        raise DatasetError(
            f"{'1 class has' if len(small) == 1 else f'{len(small)} classes have'} fewer than three photos, but each split "
            f"needs one: {some(small)}. Add photos, or leave such classes out with `dataset.min_per_class: {MINIMUM}`."
        )


def _table(
    run: DatasetRun, photos: Sequence[Photo], names: tuple[str, ...], found: dict[str, Inspected]
) -> pd.DataFrame:
    together = units(photos, {path: inspected.sha256 for path, inspected in found.items()})
    splits = split_photos(run.dataset.split, photos, names, together, isinstance(run.dataset, FolderDataset))
    parts = {photo.part for photo in photos}
    if parts != {None}:
        drawn = drawn_shares(run.dataset.split, parts)
        for part in [part for part in drawn if part != "train"]:
            log.print(
                f"The data set has no {part} split: {100 * drawn[part]:.0f} % of its training photos are drawn for it, with "
                f"seed {run.dataset.split.seed}."
            )
    for part in SPLITS[1:]:
        seen_labels = {photo.label for photo, split in zip(photos, splits, strict=True) if split == part}
        absent = [repr(name) for label, name in enumerate(names) if label not in seen_labels]
        if absent:
            note(f"{len(absent)} of {len(names)} classes have no {part} photos: {some(absent)}.")
    rows = []
    for photo, split in zip(photos, splits, strict=True):
        seen = found[photo.path]
        box = photo.box or (None,) * 4
        rows.append((photo.path, photo.label, names[photo.label], split, *box, seen.width, seen.height, seen.sha256))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(BOX, "Int64"))
