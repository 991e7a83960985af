"""A contact sheet: one training photo and its cached views, as the backbone saw them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from features.augmentation.augment import Augmenter, resolve_policy
from features.augmentation.policies import augmentation_of, of_policy
from features.backbones.table import image_size
from features.config import FeaturesConfig, FeaturesRun
from features.dataset.images import load_images
from features.dataset.index import DatasetIndex
from features.runtime.atomic import atomic_path
from features.runtime.errors import UsageError
from features.runtime.workers.engine import start_keras

NAME = "contact_sheet.png"

TILES = 48
"""Most views on a sheet; of more copies, the first are shown."""

LARGE, SMALL = 224, 112
"""Bounds of a tile's longer side in pixels: large photos are shrunk, tiny ones enlarged by an integer factor."""

GAP, CAPTION = 8, 22
"""Pixels around tiles, and below each tile for its caption."""

STAMP = "headhunt"
"""Key of the PNG text that identifies a sheet's contents."""


@dataclass(frozen=True)
class Sheet:
    """The input of a contact sheet; the cache in `folder` has `copies` augmented copies. Also a task for a worker."""

    features: FeaturesConfig
    index: DatasetIndex
    crop_to_bbox: bool
    folder: Path
    copies: int


def sheet_of(run: FeaturesRun, index: DatasetIndex, folder: Path, copies: int) -> Sheet:
    """The sheet of the cache of a run's first policy."""
    return Sheet(of_policy(run).features, index, bool(getattr(run.dataset, "crop_to_bbox", False)), folder, copies)


def write_contact_sheet(sheet: Sheet, row: int | None = None) -> Path:
    """Writes the views of the training photo in `row` of the index (default: the first) to the cache's folder.

    The first tile is the clean photo, the others its cached copies in order; resized and augmented, but before the backbone's
    preprocessing. An existing sheet with the same contents is kept. Raises UsageError for a row that is not a training photo,
    DatasetError when the photo cannot be read.
    """
    index, row = sheet.index, _training_row(sheet.index, row)
    identity = str(index.table["sha256"].iloc[row])
    shown = range(1, min(sheet.copies, TILES - 1) + 1)
    path, stamp = sheet.folder / NAME, f"{identity} {len(shown)}"
    if _stamp(path) == stamp:
        return path
    clean = load_images(index, [row], image_size(sheet.features), sheet.crop_to_bbox)[0]
    views = {"clean": clean} | {f"copy {copy}": augmented_view(sheet.features, clean, identity, copy) for copy in shown}
    information = PngInfo()
    information.add_text(STAMP, stamp)
    with atomic_path(path) as temporary:
        draw(views).save(temporary, pnginfo=information)
    return path


def augmented_view(
    features: FeaturesConfig, photo: npt.NDArray[np.uint8], identity: str, copy: int
) -> npt.NDArray[np.uint8]:
    """Copy `copy` of one training photo (h, w, 3) uint8 as it was cached, rounded to uint8; same shape."""
    start_keras("jax" if features.workers.gpus else "tensorflow")
    augmenter = Augmenter(resolve_policy(augmentation_of(features)))
    view = np.asarray(augmenter(photo[None].astype(np.float32), [identity], features.seed, "train", copy))[0]
    pixels: npt.NDArray[np.uint8] = np.rint(view).clip(0, 255).astype(np.uint8)
    return pixels


def draw(views: dict[str, npt.NDArray[np.uint8]]) -> Image.Image:
    """Draws views (h, w, 3) uint8 of one size, by caption, in a nearly square grid."""
    height, width = next(iter(views.values())).shape[:2]
    longer = max(height, width)
    scale = LARGE / longer if longer > LARGE else float(max(1, math.ceil(SMALL / longer)))
    tile = (max(1, round(width * scale)), max(1, round(height * scale)))
    columns = math.ceil(math.sqrt(len(views)))
    rows = math.ceil(len(views) / columns)
    across, down = tile[0] + GAP, tile[1] + CAPTION + GAP
    sheet = Image.new("RGB", (columns * across + GAP, rows * down + GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, (caption, view) in enumerate(views.items()):
        x, y = GAP + number % columns * across, GAP + number // columns * down
        method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        sheet.paste(Image.fromarray(view).resize(tile, method), (x, y))
        pen.text((x, y + tile[1] + 3), caption, fill="#334155", font=font)
    return sheet


def _training_row(index: DatasetIndex, row: int | None) -> int:
    table = index.table
    training = np.flatnonzero(table["split"] == "train").tolist()
    if row is None:
        return int(training[0])
    if row not in training:
        found = f"is a photo of {table['split'].iloc[row]}" if 0 <= row < len(table) else "is not in the index"
        raise UsageError(
            f"--image: row {row} {found}, but only training photos have cached views. Choose a row of the index whose split is "
            f"train, e.g. {', '.join(map(str, training[:3]))} (of 0 to {len(table) - 1})."
        )
    return row


def _stamp(path: Path) -> str | None:
    try:
        with Image.open(path) as sheet:
            found = sheet.info.get(STAMP)
            return found if isinstance(found, str) else None
    except (OSError, SyntaxError, ValueError):
        return None
