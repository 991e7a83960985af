"""Photos on the page: an example of each class, and what the backbone saw of one. Both are JPEGs inside the page."""

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
"""Classes that an example is shown of, at most."""

THUMBNAIL = 240
"""The longer side of an example in pixels, at most."""

SHEET = 1600
"""The longer side of a contact sheet in pixels, at most."""


class Examples(NamedTuple):
    """A picture of each of some classes, of how many there are, and how many of the photos could not be read any more."""

    pictures: list[Picture]
    classes: int
    gone: int


def collect(index: DatasetIndex, crop_to_bbox: bool) -> Examples:
    """The first training photo of each class; of more than CLASSES classes, of that many at even distances."""
    classes = len(index.class_names)
    labels = np.unique(np.linspace(0, classes - 1, min(classes, CLASSES)).round().astype(int)).tolist()
    in_train = (index.table["split"] == "train").to_numpy()
    pictures = []
    for label in labels:
        rows = np.flatnonzero((index.table["label"] == label).to_numpy() & in_train)
        pictures.append(Picture(index.class_names[label], thumbnail(index, int(rows[0]), crop_to_bbox)))
    return Examples(pictures, classes, sum(picture.uri is None for picture in pictures))


def contact_sheet(path: Path) -> str | None:
    """The data URI of a contact sheet, or None where there is none."""
    try:
        with Image.open(path) as sheet:
            return data_uri(sheet.convert("RGB"), SHEET)
    except (OSError, SyntaxError, ValueError):
        return None


def data_uri(image: Image.Image, longer_side: int) -> str:
    """An RGB image as a JPEG data URI, shrunk where it is larger."""
    image.thumbnail((longer_side, longer_side), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    image.save(written, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def thumbnail(index: DatasetIndex, row: int, crop_to_bbox: bool) -> str | None:
    """The data URI of the photo in this row of the index, or None where it cannot be read any more."""
    try:
        return data_uri(open_photo(*locate(index, [row], crop_to_bbox)[0]), THUMBNAIL)
    except DatasetError:
        return None
