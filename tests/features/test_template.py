"""The commented configuration reads back as what it was written from."""

from __future__ import annotations

from pathlib import Path

from features.config import FeaturesConfig, FeaturesRun, FolderDataset, StanfordCars, ToyCars
from features.configfile import load
from features.template import commented_yaml


def test_reading_it_back_gives_the_same(tmp_path: Path) -> None:
    for dataset in (ToyCars(classes=30), StanfordCars(root=Path("a b/ü: c")), FolderDataset(root=Path("x"))):
        run = FeaturesRun(dataset=dataset, features=FeaturesConfig(image_size=(64, 96), weights="random"))
        file = tmp_path / "headhunt.yaml"
        file.write_text(commented_yaml(run), encoding="utf-8")
        assert load(FeaturesRun, file) == run


def test_keys_carry_their_description_and_lines_stay_short() -> None:
    text = commented_yaml(FeaturesRun(dataset=ToyCars()))
    assert "  copies: 8  # augmented copies of the training split; 0 = clean only" in text
    assert "  # image_size:  # [height, width] in pixels; default: the backbone's own" in text
    assert max(map(len, text.splitlines())) <= 100
