"""Baselines: each checked against numbers computed in another way, and the command as a process."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from features.audit.moments import feature_moments, standardised
from features.audit.probe import fit_probe
from features.building.build import build_cache
from features.cache.feature_cache import cache_for
from features.runtime.errors import UsageError
from reports.config import Run
from tests.conftest import run_headhunt
from train.baselines.measure import BASELINES, baselines_file, load_baselines, measure_baselines
from train.baselines.probes import (
    clean_features,
    frequencies,
    linear_probe,
    nearest_neighbours,
    neighbours,
    votes,
)
from train.baselines.simple_cnn import build_simple_cnn
from train.cli import app
from train.evaluate import measure, softmax

CHEAP = ["most_frequent", "nearest_neighbours", "linear_probe"]


def change(run: Run, **baselines: Any) -> Run:
    raw = run.model_dump(mode="json")
    raw["train"]["baselines"].update(baselines)
    return Run.model_validate(raw)


def clusters(photos: int, classes: int, dim: int, seed: int = 0) -> tuple[Any, Any]:
    """Overlapping clusters: features (photos, dim) float32, labels (photos,)."""
    random = np.random.default_rng(seed)
    labels = np.arange(photos, dtype=np.int32) % classes
    centres = np.random.default_rng(99).normal(0, 1, (classes, dim))
    return (centres[labels] + random.normal(0, 1.5, (photos, dim))).astype(np.float32), labels


@pytest.mark.parametrize("same", [False, True])
def test_neighbours_are_those_of_a_search_by_brute_force(same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.baselines.probes.CHUNK_BYTES", 40 * 4 * 7)  # seven queries at a time
    train, _ = clusters(40, 4, 8)
    queries = train if same else clusters(23, 4, 8, seed=1)[0]
    positions, cosines = neighbours(queries, train, 5, same)
    for number, query in enumerate(queries):
        found = []
        for position, other in enumerate(train):
            if not (same and position == number):
                cosine = float(query @ other / (np.linalg.norm(query) * np.linalg.norm(other)))
                found.append((-cosine, position))
        nearest = sorted(found)[:5]
        assert positions[number].tolist() == [position for _, position in nearest]
        assert cosines[number] == pytest.approx([-cosine for cosine, _ in nearest], abs=1e-5)


def test_votes_by_hand() -> None:
    prior = np.array([0.5, 0.25, 0.25])
    labels, cosines = np.array([[1, 0, 1]], np.int32), np.array([[0.9, 0.83, 0.76]], np.float32)
    weights = [1, np.exp(-1), np.exp(-2)]
    total = 1 + sum(weights)
    wanted = [(0.5 + weights[1]) / total, (0.25 + weights[0] + weights[2]) / total, 0.25 / total]
    assert votes(labels, cosines, prior)[0] == pytest.approx(wanted, rel=1e-5)


def test_validation_chooses_k_and_no_photo_is_its_own_neighbour(searched: Run) -> None:
    cache = cache_for(searched)
    found = nearest_neighbours(cache, (1, 3, 99))
    train, labels = clean_features(cache, "train"), cache.labels("train")
    features, dtype = cache.arrays("train")[0], np.float32
    assert np.array_equal(train, features.astype(dtype))
    values = {}
    for k in (1, 3, len(train) - 1):  # 99 exceeds the number of photos
        positions, cosines = neighbours(clean_features(cache, "val"), train, k, False)
        metrics = measure(votes(labels[positions], cosines, frequencies(labels, 3)), cache.labels("val"))
        values[k] = (metrics.accuracy, -metrics.loss)
    assert values[int(found.chosen["k"])] == max(values.values())
    assert found.metrics.val.accuracy == max(values.values())[0]
    unit = train / np.linalg.norm(train, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    (one,) = [nearest_neighbours(cache, (1,)).metrics.train.accuracy]
    assert one == pytest.approx((labels[cosines.argmax(1)] == labels).mean())


def test_maps_are_averaged_over_their_places(searched: Run) -> None:
    features = searched.features.model_copy(update={"pooling": "none", "copies": 0})
    maps = searched.model_copy(update={"features": features})
    build_cache(maps)
    stored = cache_for(maps).arrays("val")[0].astype(np.float32)
    assert stored.ndim == 4
    assert clean_features(cache_for(maps), "val") == pytest.approx(stored.mean((1, 2)), abs=1e-5)


def test_the_linear_probe_is_that_of_a_study(searched: Run) -> None:
    cache = cache_for(searched)
    found = linear_probe(cache)
    train, labels = cache.arrays("train")
    moments = feature_moments(train)
    probe = fit_probe(standardised(train, moments), labels, len(cache.class_names))
    assert found.chosen == {"l2": probe.l2 / 2}  # for a head's penalty l2 · ΣW²
    for split in ("train", "val", "test"):
        features, wanted = cache.arrays(split)
        logits = standardised(features, moments) @ probe.kernel + probe.bias
        assert found.metrics.evaluated()[split].accuracy == pytest.approx((logits.argmax(1) == wanted).mean())
        loss = -np.log(softmax(logits)[np.arange(len(wanted)), wanted]).mean()
        assert found.metrics.evaluated()[split].loss == pytest.approx(loss, rel=1e-3, abs=1e-6)


def test_every_baseline_is_measured_once_and_kept_one_by_one(searched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setitem(BASELINES, "linear_probe", BASELINES["linear_probe"]._replace(compute=killed))
        with pytest.raises(KeyboardInterrupt):
            measure_baselines(searched)
    assert list(load_baselines(searched.workdir)) == CHEAP[:2]
    first = measure_baselines(searched)
    assert list(first) == CHEAP
    for found in first.values():
        for metrics in found.metrics.evaluated().values():
            assert metrics.ece is not None
        assert set(found.metrics.evaluated()) == {"train", "val", "test"}
    cache = cache_for(searched)
    for split in ("train", "val", "test"):
        counts = np.bincount(cache.labels("train"), minlength=3)
        share = (cache.labels(split) == counts.argmax()).mean()
        assert first["most_frequent"].metrics.evaluated()[split].accuracy == pytest.approx(share)
    written = baselines_file(searched.workdir).stat().st_mtime_ns
    assert measure_baselines(searched) == first
    assert baselines_file(searched.workdir).stat().st_mtime_ns == written
    other = measure_baselines(change(searched, neighbours=[3]))
    assert other["nearest_neighbours"].chosen == {"k": 3}
    assert other["linear_probe"] == first["linear_probe"]


def test_the_simple_cnn_is_four_convolutions_and_trains(searched: Run) -> None:
    network = build_simple_cnn(16, 3, 0)
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds[2:10] == ["Conv2D", "MaxPooling2D"] * 4
    assert kinds[10:] == ["Flatten", "Dense", "Dropout", "Dense"]
    small = {"image_size": 16, "epochs": 2, "batch_size": 4}
    run = change(searched, simple_cnn=small)
    found = measure_baselines(run, "simple_cnn")["simple_cnn"]
    assert found.chosen["epoch"] in (1, 2)
    assert found.test is not None and 0 < found.test.loss < 5
    baselines_file(run.workdir).unlink()
    again = measure_baselines(run, "simple_cnn")["simple_cnn"]
    assert again.test is not None
    assert again.test.model_dump() == pytest.approx(found.test.model_dump(), rel=1e-4)


def test_a_wrong_name_and_a_baseline_that_is_left_out(searched: Run) -> None:
    with pytest.raises(
        UsageError, match=r"--only: received 'knn'; allowed: most_frequent, nearest_neighbours, linear_probe"
    ):
        measure_baselines(searched, "knn")
    with pytest.raises(UsageError, match=re.escape("Add `--set train.baselines.simple_cnn={}`")):
        measure_baselines(searched, "simple_cnn")
    assert load_baselines(searched.workdir) == {}


def test_the_command_prints_one_table_and_one_json_line(searched: Run) -> None:
    here = Path.cwd()
    only = (
        "train",
        "baselines",
        "--only",
        "simple_cnn",
        "--set",
        "train.baselines.simple_cnn={image_size: 16, epochs: 1}",
    )
    done = run_headhunt(here, *only, "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    assert [found["name"] for found in result["baselines"]] == ["simple_cnn"]
    assert Path(result["record"]) == baselines_file(Path("run"))
    assert "simple CNN" in done.stderr


def test_promotion_prints_baselines_and_trials_in_one_table(searched: Run) -> None:
    done = CliRunner().invoke(app, ["promote", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == ["verdict", "promotions", "baselines"]
    assert [found["name"] for found in result["baselines"]] == CHEAP
    trial, recipe = (result["promotions"][0][name] for name in ("trial", "recipe"))
    told = CliRunner().invoke(app, ["promote"]).stdout
    assert "top-5" not in told  # of three classes
    told = told[told.index("test ECE") :]  # behind the verdict
    places = [
        told.index(name)
        for name in (
            "most frequent class",
            "k-nearest neighbours",
            "linear probe",
            f"trial {trial}, recipe {recipe}, frozen",
            f"trial {trial}, recipe {recipe}, fine-tuned",
        )
    ]
    assert places == sorted(places)
    caption = " ".join(told.split())
    assert (
        "validation accuracy is optimistic, because trials and epochs were chosen on the validation photos." in caption
    )
    assert "The test photos were evaluated 5 times, on 5 models" in caption
