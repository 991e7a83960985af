"""The Stanford Cars devkit (Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013).

Two forms: the combined `cars_annos.mat`, whose rows name `car_ims/000001.jpg`; and the original devkit, with one file each
for training and test, whose rows name `00001.jpg` in `cars_train/` or `cars_test/`, and class names in `cars_meta.mat`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from features.dataset.config import FractionSplit, StanfordCars
from features.dataset.index import Photo, Source
from features.runtime.errors import DatasetError

BOX_FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
COMBINED = ("relative_im_path", *BOX_FIELDS, "class", "test")
DEVKIT = ("fname", *BOX_FIELDS, "class")


def read_stanford_cars(dataset: StanfordCars) -> Source:
    """Reads either form; labels become 0-based.

    Raises DatasetError when a file is missing, not a .mat file, or has other fields.
    """
    files = dataset.annotations if isinstance(dataset.annotations, list) else [dataset.annotations]
    photos: list[Photo] = []
    names: tuple[str, ...] | None = None
    for file in files:
        path = dataset.root / file
        content = _read_mat(path)
        rows = _annotations(path, content)
        combined = "relative_im_path" in _fields(rows)
        for number, row in enumerate(rows):
            try:
                photos.append(_combined(row) if combined else _devkit(path, row, dataset.root))
            except (TypeError, ValueError) as error:
                raise DatasetError(f"{path}: annotation {number + 1} cannot be read: {error}.") from None
        if "class_names" in content:
            names = _class_names(path, content)
    if names is None:
        meta = dataset.root / dataset.meta
        names = _class_names(meta, _read_mat(meta))
    if not photos:
        raise DatasetError(f"{', '.join(str(dataset.root / file) for file in files)}: no annotations found.")
    labels = [photo.label for photo in photos]
    if min(labels) < 0 or max(labels) >= len(names):
        raise DatasetError(
            f"{dataset.root / files[0]}: classes (1-based) run from {min(labels) + 1} to {max(labels) + 1}, but there are "
            f"{len(names)} class names. Check that the annotations and `dataset.meta` belong together."
        )
    if isinstance(dataset.split, FractionSplit):  # ignore the devkit's own split
        photos = [replace(photo, part=None) for photo in photos]
    return Source(photos, names, dataset.root.resolve())


def _read_mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        there = sorted(file.name for file in path.parent.glob("*.mat")) if path.parent.is_dir() else []
        found = f"; there are {', '.join(there)}" if there else ""
        raise DatasetError(f"there is no file {path}{found}. Fix `dataset.root`, `annotations` or `meta`.")
    try:
        content: dict[str, Any] = loadmat(path, squeeze_me=True)
    except (MatReadError, ValueError, TypeError, KeyError, OSError, NotImplementedError, EOFError) as error:
        raise DatasetError(f"{path} is not a readable .mat file (version 4 to 7.2): {error}.") from None
    return content


def _annotations(path: Path, content: dict[str, Any]) -> Any:
    rows: Any = content.get("annotations")
    fields = _fields(rows)
    if fields and "relative_im_path" not in fields and "class" not in fields and set(DEVKIT[:-1]) <= set(fields):
        raise DatasetError(
            f"{path} has no field `class`: it is the unlabelled test file. Use cars_test_annos_withlabels.mat instead."
        )
    if not set(COMBINED) <= set(fields) and not set(DEVKIT) <= set(fields):
        variables = [name for name in content if not name.startswith("__")]
        found = (
            f"`annotations` with the fields {', '.join(fields)}" if fields else f"the variables {', '.join(variables)}"
        )
        raise DatasetError(
            f"{path} is not a Stanford Cars annotation file: it has {found or 'nothing'}, but must have `annotations` with "
            f"{', '.join(COMBINED)} (combined) or {', '.join(DEVKIT)} (original devkit)."
        )
    return np.atleast_1d(rows)


def _fields(rows: Any) -> Sequence[str]:
    return getattr(getattr(rows, "dtype", None), "names", None) or ()


def _class_names(path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    if "class_names" not in content:
        variables = [name for name in content if not name.startswith("__")]
        raise DatasetError(f"{path} must have `class_names`, but has {', '.join(variables) or 'nothing'}.")
    return tuple(str(name) for name in np.atleast_1d(content["class_names"]))


def _box(row: Any) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (int(row[field]) for field in BOX_FIELDS)
    return x1, y1, x2, y2


def _combined(row: Any) -> Photo:
    part = "test" if int(row["test"]) else "train"
    return Photo(_text(row["relative_im_path"]), int(row["class"]) - 1, _box(row), part)


def _devkit(path: Path, row: Any, root: Path) -> Photo:
    """Photo numbers start again in the devkit's test file, so the folder is chosen by the annotation file's name."""
    part = "test" if "test" in path.stem else "train"
    folder = f"cars_{part}/" if (root / f"cars_{part}").is_dir() else ""
    return Photo(folder + _text(row["fname"]), int(row["class"]) - 1, _box(row), part)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a file name, but got {value!r}")
    return str(value)
