"""Uninformative features are counted once, and logged in one line each, also when a search starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from features.audit.variation import VARIATION, Variation, measure_variation
from features.building.build import build_cache
from features.cache.feature_cache import FeatureCache, cache_for
from features.dataset.index import load_index
from tests.conftest import run_headhunt
from tests.features.test_build import MakeRun
from tests.features.test_features_cli import call
from tests.features.test_features_cli import configured as configured_folder

configured = configured_folder


@pytest.fixture
def partly(tmp_path: Path) -> str:
    """A backbone of six channels: two constant ones, one that is 0 for all but a few photos, and three that vary."""
    keras.utils.set_random_seed(3)
    layer = keras.layers.Conv2D(6, 3, strides=4, padding="same")
    network = keras.Sequential([keras.Input((32, 32, 3)), layer])
    kernel, bias = (np.array(weight) for weight in layer.get_weights())
    kernel[..., 1:3], bias[1:3] = 0, (0.0, 0.1)
    layer.set_weights([kernel, bias])
    network.save(tmp_path / "partly.keras")
    return str(tmp_path / "partly.keras")


def by_hand(cache: FeatureCache) -> tuple[int, int, int]:
    """The number of clean training features, of constant and of mostly constant ones, computed with numpy."""
    features = cache.arrays("train", dtype=np.float64)[0].reshape(-1, cache.feature_shape[-1])
    shares = [np.unique(column, return_counts=True)[1].max() / len(column) for column in features.T]
    return len(shares), sum(share == 1 for share in shares), sum(0.99 <= share < 1 for share in shares)


@pytest.mark.parametrize("pooling", ["avg", "none"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_constant_features_are_counted(make_run: MakeRun, partly: str, pooling: str, dtype: str) -> None:
    run = make_run(backbone=partly, pooling=pooling, dtype=dtype)
    build_cache(run)
    cache = cache_for(run)
    found = measure_variation(cache, load_index(run))
    assert (found.features, found.constant, found.mostly_constant) == by_hand(cache) == (6, 2, 0)
    assert (found.photos, found.equal_photos) == (cache.manifest.splits["train"], 0)
    assert found.warnings == [f"2 of 6 features are constant over the {found.photos} clean training photos."]


class Stored:
    """A fake cache with these clean training features, as `measure_variation` reads them."""

    def __init__(self, features: Any) -> None:
        self._features = features
        self.feature_shape = features.shape[1:]
        self.manifest: Any = type("Manifest", (), {"dtype": str(features.dtype)})

    def mapped(self, split: str) -> Any:
        return self._features

    def images(self, split: str) -> Any:
        return np.arange(len(self._features))


def measured(features: Any, photos: list[str], monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> Variation:
    import pandas as pd

    monkeypatch.setattr("features.audit.variation.CHUNK_BYTES", at_a_time * 4 * int(np.prod(features.shape[1:])))
    index: Any = type("Index", (), {"table": pd.DataFrame({"sha256": photos})})
    return measure_variation(Stored(features), index)  # type: ignore[arg-type]


@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
def test_mostly_constant_features_and_photos_that_look_alike(monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    random = np.random.default_rng(0)
    features = random.normal(0, 1, (400, 5)).astype(np.float16)
    features[:, 1] = 0
    features[[0, 50, 399], 1] = 1  # 99.25 % are 0, and the first and the last one are not
    features[:, 2] = 0
    features[:8, 2] = 1  # 98 %
    features[:, 3] = 8
    features[::2, 3] = np.nextafter(np.float16(8), np.float16(9))  # by the rounding of float16
    photos = [f"photo {number}" for number in range(400)]
    features[[10, 20, 30]] = features[40]
    photos[40] = photos[30]  # the same file twice does not count
    found = measured(features, photos, monkeypatch, at_a_time)
    assert found == Variation(5, 1, 1, 400, 4)
    assert found.warnings == [
        "1 of 5 features is constant over the 400 clean training photos.",
        "1 of 5 features has the same value in at least 99 % of the clean training photos.",
        "4 clean training photos have the same features as a different photo.",
    ]
    twins = measured(features[[30, 40, 1, 2]], [photos[place] for place in (30, 40, 1, 2)], monkeypatch, at_a_time)
    assert twins.equal_photos == 0


def test_where_all_are_constant_one_line_says_what_to_look_at() -> None:
    (line,) = Variation(1280, 1280, 0, 78, 78).warnings
    assert line.startswith(
        "All 1280 features are constant over the 78 clean training photos, so no head can distinguish them."
    )
    assert "`features.weights`" in line
    assert not Variation(6, 6, 0, 1, 0).warnings  # a single photo cannot vary


def test_the_cache_command_says_it_and_a_later_reading_reads_no_shard(configured: Path, partly: str) -> None:
    call("prepare")
    result = call("cache", "--set", f"features.backbone={partly}")
    assert result["variation"]["constant"] == 2 and result["variation"]["features"] == 6
    line = f"2 of 6 features are constant over the {result['variation']['photos']} clean training photos."
    stored = Path(result["cache"]) / VARIATION
    assert json.loads(stored.read_text())["constant"] == 2
    stored.write_text(
        stored.read_text().replace('"constant": 2', '"constant": 4')
    )  # known results are not measured again
    again = run_headhunt(configured, "features", "cache", "--set", f"features.backbone={partly}")
    assert again.stderr.count(line.replace("2 of", "4 of")) == 1
    stored.write_text(stored.read_text().replace('"of": "', '"of": "x'))  # of other shards
    assert call("cache", "--set", f"features.backbone={partly}")["variation"]["constant"] == 2


def test_photos_of_different_bytes_with_equal_features_are_said(
    configured: Path, tmp_path: Path, make_run: MakeRun
) -> None:
    """Six single-colour photos, each in two files with different bytes."""
    root = tmp_path / "plain"
    for name, shade in (("dark", 40), ("light", 200)):
        (root / name).mkdir(parents=True)
        for number in range(8):
            image = Image.new("RGB", (20, 24), (shade + number // 2 * 5,) * 3)
            image.save(root / name / f"{number}.png", compress_level=1 + number % 2 * 8)
    wanted = ("--set", f"dataset.root={root}")
    call("prepare", *wanted)
    done = run_headhunt(configured, "features", "cache", *wanted, "--json")
    found = json.loads(done.stdout.splitlines()[-1])["variation"]
    assert found["equal_photos"] > 0
    assert f"{found['equal_photos']} clean training photos have the same features as a different photo." in done.stderr
