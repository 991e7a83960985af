"""`train predict`: the top classes of any photo, predicted by an exported model of any format."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.dataset.images import inspect_image, open_photo, resized
from features.dataset.names import path_fault, printable
from features.dataset.readers.photo_files import find_photos
from features.runtime.atomic import atomic_path, read_text
from features.runtime.commands.progress import progress
from features.runtime.errors import DatasetError, HeadhuntError, UsageError
from features.runtime.log import log, relative
from train.config import TrainRun
from train.evaluate import TOP
from train.exports.record import check_unchanged
from train.exports.runtimes import RUNTIMES, format_of, load_model
from train.promotion.artifact import find_promotions

MAX_PIXELS = 100_000_000
"""Largest accepted photo, width × height."""

URL = re.compile(r"(https?|ftp|s3|gs):/+")
"""Beginnings of URLs; a path has merged their slashes."""

HEADER = ("path", "rank", "class", "label", "probability")
"""The columns of a table of predictions."""


class PredictedClass(NamedTuple):
    """A class, its label (from 0) and its probability."""

    name: str
    label: int
    probability: float


class PredictedImage(NamedTuple):
    """A photo and its top classes, most probable first."""

    image: str
    predictions: list[PredictedClass]


class Unreadable(NamedTuple):
    """A photo or folder that could not be read, and why."""

    image: str
    reason: str


class PredictResult(NamedTuple):
    """The predictions of a model file, and what could not be read."""

    model: str
    format: str
    images: list[PredictedImage]
    failed: list[Unreadable]

    def as_json(self) -> dict[str, object]:
        """The `--json` object of `train predict`."""
        images = [
            {
                "image": one.image,
                "predictions": [
                    {"class": found.name, "label": found.label, "probability": found.probability}
                    for found in one.predictions
                ],
            }
            for one in self.images
        ]
        return {**self._asdict(), "images": images, "failed": [one._asdict() for one in self.failed]}


def exported_model(run: TrainRun, trial: int | None, format_: str | None) -> Path:
    """The model file of a trial's bundle; by default of the best exported promotion, in its first format.

    Raises UsageError if nothing is exported, or not this trial or format.
    """
    bundles = run.workdir / "exports"
    if trial is None:
        exported = [each.trial for each in find_promotions(run) if _formats(bundles / str(each.trial))]
        if not exported:
            raise UsageError(f"nothing is exported in {run.workdir}. Run `headhunt train export`.")
        trial = exported[0]
    elif not _formats(bundles / str(trial)):
        raise UsageError(f"trial {trial} is not exported. Run `headhunt train export --trial {trial}`.")
    return model_in(bundles / str(trial), format_)


def model_in(path: Path, format_: str | None) -> Path:
    """The model file at a path: the path itself, or the file of this format (default: the first) in a bundle's folder."""
    if format_ is not None and format_ not in RUNTIMES:
        raise UsageError(f"--format: received {format_!r}; allowed: {', '.join(RUNTIMES)}.")
    found = _formats(path)
    if not found:
        own = format_of(path)
        if format_ not in (None, own):
            raise UsageError(f"{relative(path)} is {own}, not {format_}. Remove --format.")
        return path
    chosen = format_ or found[0]
    if chosen not in found:
        raise UsageError(
            f"{relative(path)} has no {chosen}, only {', '.join(found)}. Run `headhunt train export --format {chosen}`."
        )
    return path / RUNTIMES[chosen].file


def predict_images(model_file: Path, paths: Sequence[Path]) -> PredictResult:
    """The top five classes of every photo, most probable first.

    `paths` are photos and folders, in which photos are found as by `features prepare`. A photo is read like those of the data set
    (first frame, turned upright, RGB) and resized to the model's input. Class names come from labels.txt next to the model. What
    cannot be read, or not be named in a table, is logged and listed in `failed` with the reason; the others are still predicted.
    """
    labels_file = model_file.with_name("labels.txt")
    try:
        names = read_text(
            labels_file, "Export the model again; it must list the class names, one per line."
        ).splitlines()
    except FileNotFoundError:
        raise UsageError(
            f"{labels_file} is missing; it must list the class names, one per line. Put it next to the model."
        ) from None
    failed: list[Unreadable] = []

    def leave_out(path: Path | str, reason: str) -> None:
        failed.append(Unreadable(printable(str(path)), reason))
        log.print(f"{printable(str(path))}: {reason}", style="yellow")

    images = _images(paths, leave_out)
    format_ = format_of(model_file)
    check_unchanged(model_file)
    model = load_model(model_file, format_)
    size = model.image_size
    rows = []
    with progress("predictions", len(images), "images") as advance:
        for image in images:
            advance(1)
            fault = path_fault(str(image)) or inspect_image(image, MAX_PIXELS, {}).fault
            if fault:
                leave_out(image, fault)
                continue
            probabilities = model.run(resized(open_photo(image), size)[None])[0]
            if len(probabilities) != len(names):
                raise HeadhuntError(
                    f"{labels_file} lists {len(names)} classes, but {model_file} has {len(probabilities)}: they come from "
                    "different exports. Export the model again."
                )
            best = np.argsort(-probabilities, kind="stable")[:TOP]
            found = [PredictedClass(names[label], int(label), float(probabilities[label])) for label in best]
            rows.append(PredictedImage(str(image), found))
    return PredictResult(relative(model_file), format_, rows, failed)


def check_out(path: Path) -> None:
    """UsageError if a table cannot be written to this path or would replace another file; called before anything is predicted."""
    if path.is_dir():
        raise UsageError(f"--out: {path} is a folder. Give a file, such as {path / 'predictions.csv'}.")
    if not path.parent.is_dir():
        raise UsageError(f"--out: the folder {path.parent} does not exist. Create it, or give another file.")
    if path.is_file() and not _may_be_replaced(path):
        raise UsageError(f"--out: {path} exists and is not a table of predictions. Delete it, or give another file.")


def _may_be_replaced(path: Path) -> bool:
    """Whether a file is empty or begins like a table of predictions: a photo or a model given by mistake must not be lost."""
    header = ",".join(HEADER).encode()
    with path.open("rb") as file:
        return file.read(len(header)) in (b"", header)


def write_predictions(path: Path, images: Sequence[PredictedImage]) -> None:
    """Writes a CSV table atomically: one row per photo and rank, with the columns path, rank (from 1), class, label (from 0) and
    probability."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for row in images:
            for rank, found in enumerate(row.predictions, start=1):
                writer.writerow([row.image, rank, found.name, found.label, repr(found.probability)])


def _images(paths: Sequence[Path], leave_out: Callable[[Path | str, str], None]) -> list[Path]:
    """The photos at these paths, without duplicates; a folder is replaced by its photos."""
    images: list[Path] = []
    for path in paths:
        if URL.match(str(path)) and not path.exists():
            leave_out(
                URL.sub(r"\1://", str(path), count=1), "a URL; download the photo first, and give the file's path"
            )
            continue
        if not path.is_dir():
            images.append(path)
            continue
        try:
            found = find_photos(path)
        except DatasetError as error:
            leave_out(path, str(error))
            continue
        if not found:
            leave_out(path, "the folder has no photos")
        images += found
    return list(dict.fromkeys(images))


def _formats(bundle: Path) -> list[str]:
    """The model formats in a bundle's folder."""
    return [name for name, runtime in RUNTIMES.items() if (bundle / runtime.file).exists()]
