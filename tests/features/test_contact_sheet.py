"""`features info` and its contact sheet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from features.backbones.extract import extractor
from features.building.build import build_cache
from features.building.contact_sheet import (
    CAPTION,
    GAP,
    SMALL,
    TILES,
    augmented_view,
    draw,
    sheet_of,
    write_contact_sheet,
)
from features.building.info import class_balance, lines
from features.cache.feature_cache import cache_for
from features.cli import app
from features.config import FeaturesRun
from features.dataset.images import load_images
from features.dataset.index import DatasetIndex, load_index

MakeRun = Callable[..., FeaturesRun]


def draw_sheet(run: FeaturesRun, index: DatasetIndex) -> Path:
    cache = cache_for(run)
    return write_contact_sheet(sheet_of(run, index, cache.folder, cache.copies))


@pytest.fixture
def info(cached_run: FeaturesRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls `headhunt features info` on a cached run; returns exit status, JSON object and standard error."""
    raw = cached_run.model_dump(mode="json", include={"workdir", "dataset", "features"})
    (tmp_path / "headhunt.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, Any, str]:
        result = CliRunner().invoke(app, ["info", "--json", *arguments])
        facts = json.loads(result.stdout) if result.stdout else None
        return result.exit_code, facts, " ".join(result.stderr.split())

    return call


def test_info_says_what_is_cached_and_from_what(cached_run: FeaturesRun, info: Callable[..., Any]) -> None:
    status, facts, said = info()
    cache = cache_for(cached_run)
    assert status == 0
    assert facts["key_parts"] == cache.manifest.key_parts
    assert facts["shards"] == len(list(cache.folder.glob("*.tfrecord"))) == 8
    assert facts["bytes"] == sum(file.stat().st_size for file in cache.folder.glob("*.tfrecord"))
    built = json.loads((cache.folder / "build.json").read_text())
    assert facts["last_build"] == {name: built[name] for name in ("seconds", "images_per_second", "shards_written")}
    assert facts["class_balance"]["train"]["largest"] == {"class": "b", "photos": 6}
    assert (cache.folder / "contact_sheet.png").samefile(facts["contact_sheet"])
    assert "key: pooling avg" in said
    assert "classes of val smallest 1" in said
    (cache.folder / "build.json").write_text("{")
    assert info()[1]["last_build"] is None


def test_the_balance_of_the_classes(make_run: MakeRun) -> None:
    index = load_index(make_run())
    table = index.table.copy()
    table["split"] = ["train"] * 12 + ["val"] * 8 + ["test"] * 4
    table["label"] = [0] * 7 + [1] * 4 + [2] * 9 + [0] * 2 + [1, 2]
    balance = class_balance(DatasetIndex(table, index.class_names, index.root))
    assert balance["train"] == {
        "smallest": {"class": "c", "photos": 1},
        "median": {"class": "b", "photos": 4},
        "largest": {"class": "a", "photos": 7},
    }
    assert [one["photos"] for one in balance["val"].values()] == [0, 0, 8]
    assert dict(lines({"class_balance": balance}))["classes of test"] == "smallest 1 (b), median 1 (c), largest 2 (a)"


def test_the_sheet_shows_what_the_backbone_saw(cached_run: FeaturesRun) -> None:
    """The features of a view on the sheet equal those in the cache, up to rounding to integer pixels and float16."""
    index, cache = load_index(cached_run), cache_for(cached_run)
    row = int(cache.images("train")[0])
    clean = load_images(index, [row], (32, 32), False)
    view = augmented_view(cached_run.features, clean[0], index.table["sha256"][row], 1)
    assert np.abs(view.astype(int) - clean[0]).mean() > 5
    extract = extractor(cached_run.features.model_dump_json())
    for copy, pixels in ((0, clean), (1, view[None])):
        cached = cache.arrays("train", copy)[0][0].astype(np.float32)
        np.testing.assert_allclose(extract(pixels)[0], cached, atol=0.02 * float(np.abs(cached).max()))
    with Image.open(write_contact_sheet(sheet_of(cached_run, index, cache.folder, cache.copies), row)) as sheet:
        shown = np.asarray(sheet)
    side = 4 * 32  # the smallest multiple that is at least SMALL
    assert shown.shape == (GAP + side + CAPTION + GAP, 2 * (side + GAP) + GAP, 3)
    tiles = [shown[GAP : GAP + side : 4, left : left + side : 4] for left in (GAP, side + 2 * GAP)]
    np.testing.assert_array_equal(tiles[0], clean[0])
    np.testing.assert_array_equal(tiles[1], view)


def test_a_row_can_be_chosen_among_the_training_photos(cached_run: FeaturesRun, info: Callable[..., Any]) -> None:
    table = load_index(cached_run).table
    first, last = table.index[table["split"] == "train"][[0, -1]]
    sheet = Path(info()[1]["contact_sheet"])
    drawn = sheet.read_bytes()
    assert info("--image", str(last))[0] == 0
    assert sheet.read_bytes() != drawn
    assert info("--image", str(first))[0] == 0
    assert sheet.read_bytes() == drawn
    status, facts, said = info("--image", str(table.index[table["split"] == "val"][0]))
    assert (status, facts) == (2, None)
    assert (
        "is a photo of val, but only training photos have cached views. Choose a row of the index whose split is"
        in said
    )
    for row in ("24", "-1"):
        status, _, said = info("--image", row)
        assert (status, "is not in the index" in said) == (2, True)


def test_a_sheet_that_shows_the_same_is_left_alone_and_one_more_copy_is_added(make_run: MakeRun) -> None:
    run = make_run(copies=1)
    build_cache(run)
    index = load_index(run)
    path = draw_sheet(run, index)
    drawn = path.stat().st_mtime_ns
    assert draw_sheet(run, index).stat().st_mtime_ns == drawn
    with Image.open(path) as before:
        size = before.size
    more = make_run(copies=2)
    build_cache(more)
    with Image.open(draw_sheet(more, index)) as after:
        assert after.height > size[1]
    path.write_bytes(b"cut short")
    with Image.open(draw_sheet(more, index)) as mended:
        assert mended.height > size[1]


def test_without_the_photos_the_facts_are_still_there(cached_run: FeaturesRun, info: Callable[..., Any]) -> None:
    index = load_index(cached_run)
    photo = index.root / index.table["path"][0]
    hidden = photo.with_suffix(".hidden")
    photo.rename(hidden)
    (cache_for(cached_run).folder / "contact_sheet.png").unlink()
    try:
        status, facts, said = info()
        assert (status, facts["contact_sheet"], facts["images"]) == (0, None, 24)
        assert "No contact sheet: cannot read the photo" in said
        status, facts, said = info("--image", "0")
        assert (status, facts) == (2, None)
        assert said.startswith("headhunt: cannot read the photo")
    finally:
        hidden.rename(photo)


@pytest.mark.parametrize(
    ("views", "height", "width", "columns", "tile"),
    [
        (1, 300, 600, 1, (224, 112)),
        (5, 520, 520, 3, (224, 224)),
        (TILES, 100, 100, 7, (200, 200)),
        (2, 1, 1, 2, (SMALL,) * 2),
    ],
)
def test_sheets_of_all_sizes(views: int, height: int, width: int, columns: int, tile: tuple[int, int]) -> None:
    sheet = draw({f"copy {n}": np.full((height, width, 3), 200, np.uint8) for n in range(views)})
    rows = -(-views // columns)
    assert sheet.size == (columns * (tile[0] + GAP) + GAP, rows * (tile[1] + CAPTION + GAP) + GAP)
