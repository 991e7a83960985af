"""`train predict`: the best classes of any photo, by an exported model of any format."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.dataset.images import inspect_image, open_photo, resized
from features.dataset.readers.folders import find_photos
from features.runtime.atomic import atomic_path
from features.runtime.commands.progress import progress
from features.runtime.errors import DatasetError, HeadhuntError, UsageError
from features.runtime.log import log, relative
from train.config import TrainRun
from train.evaluate import TOP
from train.exports.runtimes import RUNTIMES, format_of, load_model
from train.promotion.artifact import find_promotions

MAX_PIXELS = 100_000_000
"""Larger images are refused, as width × height."""


class PredictedClass(NamedTuple):
    """A class, its label (from 0) and its probability."""

    name: str
    label: int
    probability: float


class PredictedImage(NamedTuple):
    """An image and its best classes, the most probable first."""

    image: str
    predictions: list[PredictedClass]


class Unreadable(NamedTuple):
    """An image, or a folder, that could not be predicted, and why."""

    image: str
    reason: str


class PredictResult(NamedTuple):
    """What a model file of a format predicts, and what it could not."""

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
    """The model file of a trial's bundle; by default of the best promotion that is exported, in the first format that it has.

    Raises UsageError when nothing, or not this trial or format, is exported.
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
    """The model file that a path names: itself, or the one of this format (default: the first) in a bundle's folder."""
    if format_ is not None and format_ not in RUNTIMES:
        raise UsageError(f"--format: received {format_!r}; allowed: {', '.join(RUNTIMES)}.")
    found = _formats(path)
    if not found:
        own = format_of(path)
        if format_ not in (None, own):
            raise UsageError(f"{relative(path)} is {own}, not {format_}. Leave --format out.")
        return path
    chosen = format_ or found[0]
    if chosen not in found:
        raise UsageError(
            f"{relative(path)} has no {chosen}, only {', '.join(found)}. Run `headhunt train export --format {chosen}`."
        )
    return path / RUNTIMES[chosen].file


def predict_images(model_file: Path, paths: Sequence[Path]) -> PredictResult:
    """The five best classes of every image, most probable first.

    `paths` are images, and folders whose photos are taken as `features prepare` takes them. An image is read as the data set's
    photos are (first frame, turned upright, RGB) and resized to what the model takes. The names of the classes come from
    labels.txt beside the model. What cannot be read is said and listed in `failed`, with the reason; the others go on.
    """
    labels_file = model_file.with_name("labels.txt")
    try:
        names = labels_file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UsageError(
            f"{labels_file} is missing: it names the classes, one a line. Keep it beside the model."
        ) from None
    failed: list[Unreadable] = []

    def leave_out(path: Path, reason: str) -> None:
        failed.append(Unreadable(str(path), reason))
        log.print(f"{path}: {reason}", style="yellow")

    images = _images(paths, leave_out)
    format_ = format_of(model_file)
    model = load_model(model_file, format_)
    size = model.image_size
    rows = []
    with progress("predictions", len(images), "images") as advance:
        for image in images:
            advance(1)
            fault = inspect_image(image, MAX_PIXELS, {}).fault
            if fault:
                leave_out(image, fault)
                continue
            probabilities = model.run(resized(open_photo(image), size)[None])[0]
            if len(probabilities) != len(names):
                raise HeadhuntError(
                    f"{labels_file} names {len(names)} classes, but {model_file} has {len(probabilities)}. They are of two "
                    "exports."
                )
            best = np.argsort(-probabilities, kind="stable")[:TOP]
            found = [PredictedClass(names[label], int(label), float(probabilities[label])) for label in best]
            rows.append(PredictedImage(str(image), found))
    return PredictResult(relative(model_file), format_, rows, failed)


def check_out(path: Path) -> None:
    """UsageError for a path that no table can be written to, before anything is predicted."""
    if path.is_dir():
        raise UsageError(f"--out: {path} is a folder. Name a file, such as {path / 'predictions.csv'}.")
    if not path.parent.is_dir():
        raise UsageError(f"--out: there is no folder {path.parent}. Make it, or name another file.")


def write_predictions(path: Path, images: Sequence[PredictedImage]) -> None:
    """Writes a CSV table, atomically: a row for each image and rank, with the columns path, rank (from 1), class, label (from 0)
    and probability."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "rank", "class", "label", "probability"])
        for row in images:
            for rank, found in enumerate(row.predictions, start=1):
                writer.writerow([row.image, rank, found.name, found.label, repr(found.probability)])


def _images(paths: Sequence[Path], leave_out: Callable[[Path, str], None]) -> list[Path]:
    """The images of these paths, each once: a folder's photos in its place."""
    images: list[Path] = []
    for path in paths:
        if not path.is_dir():
            images.append(path)
            continue
        try:
            found = find_photos(path)
        except DatasetError as error:
            leave_out(path, str(error))
            continue
        if not found:
            leave_out(path, "a folder without photos")
        images += found
    return list(dict.fromkeys(images))


def _formats(bundle: Path) -> list[str]:
    """The formats that a bundle's folder has."""
    return [name for name, runtime in RUNTIMES.items() if (bundle / runtime.file).exists()]
