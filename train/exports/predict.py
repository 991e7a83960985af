"""`train predict`: the best classes of any photo, by an exported model of any format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.command import relative
from features.errors import HeadhuntError, UsageError
from features.images import inspect_image, open_photo, resized
from train.config import TrainRun
from train.evaluate import TOP
from train.exports.runtimes import RUNTIMES, format_of, load_model
from train.promotion.artifact import find_promotions

MAX_PIXELS = 100_000_000
"""Larger images are refused, as width × height."""


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


def predict_images(model_file: Path, images: Sequence[Path]) -> dict[str, Any]:
    """The five best classes of every image, most probable first; returns the `--json` object of `train predict`.

    An image is read as the data set's photos are (first frame, turned upright, RGB) and resized to what the model takes. The
    names of the classes come from labels.txt beside the model. Raises UsageError for an image that is missing or cannot be
    read, before any is predicted.
    """
    for image in images:
        fault = inspect_image(image, MAX_PIXELS, {}).fault
        if fault:
            raise UsageError(f"{image}: {fault}. Name an image that Pillow reads, such as a JPEG or PNG.")
    labels_file = model_file.with_name("labels.txt")
    try:
        names = labels_file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UsageError(
            f"{labels_file} is missing: it names the classes, one a line. Keep it beside the model."
        ) from None
    format_ = format_of(model_file)
    model = load_model(model_file, format_)
    size = model.image_size
    rows = []
    for image in images:
        probabilities = model.run(resized(open_photo(image), size)[None])[0]
        if len(probabilities) != len(names):
            raise HeadhuntError(
                f"{labels_file} names {len(names)} classes, but {model_file} has {len(probabilities)}. They are of two exports."
            )
        best = np.argsort(-probabilities, kind="stable")[:TOP]
        found = [
            {"class": names[label], "label": int(label), "probability": float(probabilities[label])} for label in best
        ]
        rows.append({"image": str(image), "predictions": found})
    return {"model": relative(model_file), "format": format_, "images": rows}


def _formats(bundle: Path) -> list[str]:
    """The formats that a bundle's folder has."""
    return [name for name, runtime in RUNTIMES.items() if (bundle / runtime.file).exists()]
