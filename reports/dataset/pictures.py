"""Photos on the page: an example of each class, and a contact sheet of one photo's views. Both are embedded JPEGs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from features.dataset.images import locate, open_photo
from features.dataset.index import DatasetIndex
from features.runtime.errors import DatasetError
from reports.section import Picture

CLASSES = 24
"""Maximum number of classes with an example."""

THUMBNAIL = 240
"""Maximum length of an example's longer side in pixels."""

SHEET = 1600
"""Maximum length of a contact sheet's longer side in pixels."""


class Examples(NamedTuple):
    """A picture of each shown class, the number of all classes, and how many of the photos could no longer be read."""

    pictures: list[Picture]
    classes: int
    gone: int


def collect(index: DatasetIndex, crop_to_bbox: bool) -> Examples:
    """The first training photo of each class, or of CLASSES evenly spaced classes if there are more."""
    classes = len(index.class_names)
    labels = np.unique(np.linspace(0, classes - 1, min(classes, CLASSES)).round().astype(int)).tolist()
    in_train = (index.table["split"] == "train").to_numpy()
    pictures = []
    for label in labels:
        rows = np.flatnonzero((index.table["label"] == label).to_numpy() & in_train)
        pictures.append(Picture(index.class_names[label], thumbnail(index, int(rows[0]), crop_to_bbox)))
    return Examples(pictures, classes, sum(picture.uri is None for picture in pictures))


def contact_sheet(path: Path) -> str | None:
    """The data URI of a contact sheet, or None if it cannot be read."""
    try:
        with Image.open(path) as sheet:
            return data_uri(sheet.convert("RGB"), SHEET)
    except (OSError, SyntaxError, ValueError):
        return None


def data_uri(image: Image.Image, longer_side: int) -> str:
    """An RGB image as a JPEG data URI, shrunk if its longer side exceeds `longer_side` pixels."""
    image.thumbnail((longer_side, longer_side), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    image.save(written, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def thumbnail(index: DatasetIndex, row: int, crop_to_bbox: bool) -> str | None:
    """The data URI of the photo in this row of the index, or None if it can no longer be read."""
    try:
        return data_uri(open_photo(*locate(index, [row], crop_to_bbox)[0]), THUMBNAIL)
    except DatasetError:
        return None
