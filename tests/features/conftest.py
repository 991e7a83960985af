"""A tiny data set, a tiny backbone and a cache made of them, by the real code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from features.build import build_cache
from features.config import FeaturesRun
from features.prepare import prepare

MakeRun = Callable[..., FeaturesRun]


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .keras file: (32, 32, 3) to a map (8, 8, 6), with a BatchNormalization."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Conv2D(6, 3, strides=2, padding="same"),
        ]
    )
    functional = keras.Model(model.inputs, model.outputs)
    path = tmp_path_factory.mktemp("backbone") / "tiny.keras"
    functional.save(path)
    return path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photos of noise on three tints, in folders a, b, c."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for label, name in enumerate("abc"):
        (root / name).mkdir()
        for number in range(8):
            pixels = random.integers(0, 120, (20, 24, 3), np.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def make_run(tmp_path: Path, tiny_backbone: Path, photos: Path) -> MakeRun:
    """A prepared run on `photos` and `tiny_backbone`; keywords change its `features` section."""

    def make(folder: str = "run", prepared: bool = True, **features: Any) -> FeaturesRun:
        section = {
            "backbone": str(tiny_backbone),
            "preprocessing": "resnet_v2",
            "image_size": 32,
            "compute": "float32",
            "copies": 1,
            "batch_size": 4,
            "images_per_shard": 6,
            "workers": {"executor": "local"},
            **features,
        }
        run = FeaturesRun.model_validate(
            {"workdir": tmp_path / folder, "dataset": {"kind": "folder", "root": photos}, "features": section}
        )
        if prepared:
            prepare(run)
        return run

    return make


@pytest.fixture
def cached_run(make_run: MakeRun) -> FeaturesRun:
    """A run whose cache is built: 1 augmented copy."""
    run = make_run()
    build_cache(run)
    return run
