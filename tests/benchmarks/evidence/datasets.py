"""The data sets of the evidence, as folders of photos and `headhunt.yaml` files: nothing is downloaded.

Nine of them: 50 classes of real cars through each of three networks, the same classes with few and with uneven photos, two of
them alone, scikit-learn's digits, and drawn cars, easy and hard.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("HEADHUNT_EVIDENCE_DATA", ROOT.parent / "shared" / "data"))
"""Where the real photos and the networks' weights are."""

RESNET = {
    "backbone": str(DATA / "weights/resnet101v2_slim_imagenet_conv1_to_conv4.keras"),
    "preprocessing": "resnet_v2",
}
MOBILENET = {"backbone": "mobilenetv2", "weights": str(DATA / "weights/mobilenet_v2_imagenet_notop.weights.h5")}
LITE0 = {"backbone": "efficientnet_lite0"}

CARS = {
    "kind": "stanford_cars",
    "root": str(DATA / "stanford_cars_50"),
    "annotations": ["../stanford_cars_devkit/cars_train_annos.mat"],
    "meta": "../stanford_cars_devkit/cars_meta.mat",
    "on_missing": "skip",
}


class DataSet(NamedTuple):
    """A data set and the network that it is seen through; `photos(root)` lays out its class folders where it has none yet."""

    network: dict[str, Any]
    image_size: int
    dataset: dict[str, Any] | None = None
    photos: Callable[[Path], None] | None = None
    copies: int = 2


def digits(root: Path) -> None:
    """scikit-learn's 1,797 digits of 8 × 8 pixels, enlarged."""
    from sklearn.datasets import load_digits

    found = load_digits()
    for number, (pixels, label) in enumerate(zip(found.images, found.target, strict=True)):
        folder = root / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        photo = Image.fromarray((pixels * (255 / 16)).astype(np.uint8)).resize((128, 128), Image.Resampling.BICUBIC)
        photo.convert("RGB").save(folder / f"{number:04}.png")


def pair(root: Path) -> None:
    """Two classes of real cars that look alike, at most 40 photos each."""
    by_class = _photos_by_class()
    wanted = [name for name in sorted(by_class) if len(by_class[name]) >= 40][:2]
    _link(root, {name: by_class[name][:40] for name in wanted})


def imbalanced(root: Path) -> None:
    """The 50 classes with 5 to 40 photos each, evenly spread on a logarithmic scale, in an order that is drawn."""
    by_class = _photos_by_class()
    counts = np.geomspace(5, 40, len(by_class)).round().astype(int)
    np.random.default_rng(0).shuffle(counts)
    _link(root, {name: by_class[name][:count] for name, count in zip(sorted(by_class), counts, strict=True)})


DATA_SETS: dict[str, DataSet] = {
    "cars_resnet": DataSet(
        RESNET, 224, {**CARS, "split": {"train": 0.65, "val": 0.20, "test": 0.15, "seed": 1}}, copies=4
    ),
    "cars_mobilenet": DataSet(MOBILENET, 224, CARS),
    "cars_lite0": DataSet(LITE0, 224, CARS),
    "imbalanced": DataSet(LITE0, 224, photos=imbalanced),
    "pair": DataSet(LITE0, 224, photos=pair),
    "digits": DataSet(LITE0, 128, photos=digits),
    "toy_easy": DataSet(MOBILENET, 128, {"kind": "toy_cars", "classes": 12, "per_class": 40}),
    "toy_hard": DataSet(MOBILENET, 128, {"kind": "toy_cars", "classes": 96, "per_class": 20}),
}


def configuration(out: Path, name: str, split: int | None = None) -> dict[str, Any]:
    """The sections `name`, `dataset` and `features` of a data set, whose photos are laid out below `out` where it has none yet.

    `split` is the seed of its split by shares; None: the data set's own.
    """
    made = DATA_SETS[name]
    dataset = made.dataset
    if made.photos is not None:
        photos = out / name / "photos"
        if not photos.exists():
            made.photos(photos.with_name("photos.tmp"))
            photos.with_name("photos.tmp").rename(photos)
        dataset = {"kind": "folder", "root": str(photos.resolve())}
    if split is not None:
        dataset = {**(dataset or {}), "split": {"train": 0.65, "val": 0.20, "test": 0.15, "seed": split}}
    workers = {"executor": "local", "count": os.cpu_count(), "cpus": 1}
    features = {**made.network, "image_size": made.image_size, "copies": made.copies, "workers": workers}
    return {"name": name, "dataset": dataset, "features": features}


def _photos_by_class() -> dict[str, list[Path]]:
    """The real cars' photos by class, in the devkit's order."""
    from scipy.io import loadmat

    names = loadmat(DATA / "stanford_cars_devkit/cars_meta.mat", squeeze_me=True)["class_names"]
    annotations = loadmat(DATA / "stanford_cars_devkit/cars_train_annos.mat", squeeze_me=True)["annotations"]
    found: dict[str, list[Path]] = {}
    for annotation in annotations:
        photo = DATA / "stanford_cars_50/cars_train" / str(annotation["fname"])
        if photo.exists():
            found.setdefault(str(names[int(annotation["class"]) - 1]).replace("/", "-"), []).append(photo)
    return found


def _link(root: Path, by_class: dict[str, list[Path]]) -> None:
    for name, photos in by_class.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for photo in photos:
            shutil.copyfile(photo, folder / photo.name)
