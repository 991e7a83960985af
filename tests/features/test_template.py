"""The commented configuration reads back as the configuration it was generated from."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.config import FeaturesConfig, FeaturesRun
from features.dataset.config import FolderDataset, StanfordCars, ToyCars
from features.run_file import load
from features.runtime.commands.template import commented_yaml

pytestmark = pytest.mark.unit


def test_reading_it_back_gives_the_same(tmp_path: Path) -> None:
    layers = [{"layer": "RandomBrightness", "factor": [0.1, 0.2]}, {"layer": "RandomFlip"}]
    for dataset, augmentation in (
        (ToyCars(classes=30), layers),
        (StanfordCars(root=Path("a b/ü: c")), {"policy": "mild", "clean_probability": 0.25}),
        (FolderDataset(root=Path("x")), {"layers": layers, "name": "mine"}),
        (ToyCars(), ["mild", {"policy": "flip_rotate_zoom", "copies": 2}, {"layers": layers, "name": "mine"}]),
    ):
        features = FeaturesConfig.model_validate(
            {"image_size": (64, 96), "weights": "random", "augmentation": augmentation}
        )
        run = FeaturesRun(dataset=dataset, features=features)
        file = tmp_path / "headhunt.yaml"
        file.write_text(commented_yaml(run), encoding="utf-8")
        assert load(FeaturesRun, file) == run


def test_keys_carry_their_description_and_lines_stay_short() -> None:
    text = commented_yaml(FeaturesRun(dataset=ToyCars()))
    assert "  copies: 4  # augmented copies of the training split; 0 = clean only" in text
    assert "  # image_size:  # [height, width] in pixels; default: the backbone's own" in text
    assert max(map(len, text.splitlines())) <= 100
