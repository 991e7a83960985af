"""A photo whose bytes are no longer those of the index ends whatever would read it: cache, promotion, export."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from features.building.build import build_cache
from features.building.doctor import verify
from features.dataset.index import load_index
from features.dataset.prepare import prepare
from features.runtime.errors import DatasetError, HeadhuntError
from reports.config import Run
from train.exports.export import export
from train.promotion.promote import promote


def with_own_photos(run: Run, photos: Path, folder: Path) -> Run:
    """The run on a copy of its photos."""
    shutil.copytree(photos, folder)
    run = run.model_copy(update={"dataset": run.dataset.model_copy(update={"root": folder})})
    prepare(run)
    return run


def turn(run: Run, split: str) -> Path:
    """Turns a photo of a split upside down; returns its file."""
    index = load_index(run)
    file = index.root / index.of_split(split)["path"].iloc[-1]
    with Image.open(file) as opened:
        turned = opened.rotate(180)
    turned.save(file)
    return file


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_nothing_is_cached_of_it(searched: Run, photos: Path, tmp_path: Path, split: str) -> None:
    run = with_own_photos(searched, photos, tmp_path / "photos")
    shutil.move(run.workdir / "cache", "before")
    file = turn(run, split)
    with pytest.raises(
        DatasetError, match=rf"the photo {file} has changed since `headhunt features prepare`: .* Restore it"
    ):
        build_cache(run)
    shutil.copy(photos / file.relative_to(tmp_path / "photos"), file)
    build_cache(run)
    assert verify(run)["ok"]
    made = {path.name: path.read_bytes() for path in run.workdir.glob("cache/*/*.tfrecord")}
    assert made == {path.name: path.read_bytes() for path in Path("before").glob("*/*.tfrecord")}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_it_is_not_trained_or_tested_on(searched: Run, photos: Path, tmp_path: Path, split: str) -> None:
    run = with_own_photos(searched, photos, tmp_path / "photos")
    file = turn(run, split)
    with pytest.raises(HeadhuntError, match=f"the photo {file} has changed since"):
        promote(run)
    assert not list(run.workdir.glob("promotions/*/metrics.json"))
    assert not (run.workdir / "test_ledger.csv").exists()


def test_exports_are_not_compared_on_it(promoted: Run, photos: Path, tmp_path: Path) -> None:
    run = with_own_photos(promoted, photos, tmp_path / "photos")
    file = turn(run, "val")
    with pytest.raises(HeadhuntError, match=f"the photo {file} has changed since"):
        export(run, None, ["keras"])
