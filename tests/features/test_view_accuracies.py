"""The probe of each policy's views, against scikit-learn's own logistic regression."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from features.audit.probe import spread
from features.audit.view_accuracies import FURTHER, L2, best_probe, vectors, view_accuracies
from features.building.build import build_caches
from features.cache.feature_cache import cache_for
from features.cli import app
from features.config import FeaturesRun
from features.runtime.commands.template import commented_yaml

MakeRun = Callable[..., FeaturesRun]


@pytest.mark.parametrize("dim", [12, 300])
def test_it_is_scikit_learns_on_standardised_features(dim: int) -> None:
    random = np.random.default_rng(dim)
    centres = random.normal(0, 3 / np.sqrt(dim), (5, dim))
    labels, val_labels = (random.integers(0, 5, count).astype(np.int32) for count in (150, 400))
    scale, shift = random.uniform(0.1, 10, dim), random.normal(0, 5, dim)
    train, val = (
        ((centres[which] + random.normal(0, 1, (len(which), dim))) * scale + shift).astype(np.float32)
        for which in (labels, val_labels)
    )
    expected = peers(train, labels, val, val_labels, L2)
    assert 0.3 < max(expected) < 0.98, "a problem that shows something"
    assert best_probe(train, labels, val, val_labels, 5).accuracy == pytest.approx(max(expected), abs=0.0101)


def peers(train: Any, labels: Any, val: Any, val_labels: Any, penalties: Sequence[float]) -> list[float]:
    """The validation accuracies of scikit-learn's logistic regression."""
    found = []
    for l2 in penalties:
        model = LogisticRegression(C=1 / (l2 * len(train)), max_iter=5000, tol=1e-6)
        found.append(make_pipeline(StandardScaler(), model).fit(train, labels).score(val, val_labels))
    return found


def hidden(count: int, seed: int, noise: float = 30) -> tuple[Any, Any]:
    """Eight well-separated classes, hidden by three directions of large noise: only weak penalties find them."""
    random = np.random.default_rng(5)
    centres, mixing = random.normal(0, 1, (8, 40)), random.normal(0, noise, (3, 40))
    labels = np.arange(count, dtype=np.int32) % 8
    random = np.random.default_rng(seed)
    features = centres[labels] + random.normal(0, 0.7, (count, 40)) + random.normal(0, 1, (count, 3)) @ mixing
    return features.astype(np.float32), labels


def well_hidden(count: int, seed: int) -> tuple[Any, Any]:
    return hidden(count, seed, 150)


def mislabelled(count: int, seed: int) -> tuple[Any, Any]:
    """Two classes that differ a little in every feature; three in ten of the first 80 labels are wrong."""
    centre, labels = np.random.default_rng(0).normal(0, 0.35, 60), np.arange(count, dtype=np.int32) % 2
    random = np.random.default_rng(seed)
    features = np.where(labels == 1, 1, -1)[:, None] * centre + random.normal(0, 1, (count, 60))
    wrong = (random.random(count) < 0.3) & (count == 80)
    return features.astype(np.float32), np.where(wrong, 1 - labels, labels).astype(np.int32)


@pytest.mark.parametrize(
    ("make", "classes", "side", "edge"),
    [(hidden, 8, "weakest", None), (well_hidden, 8, "weakest", "weakest"), (mislabelled, 2, "strongest", None)],
)
def test_where_the_best_penalty_ends_the_grid_it_goes_on(make: Any, classes: int, side: Any, edge: Any) -> None:
    (train, labels), (val, val_labels) = make(80 if classes == 2 else 240, 1), make(1000, 2)
    order = [*L2, *FURTHER[side]]
    theirs = dict(zip(order, peers(train, labels, val, val_labels, order), strict=True))
    found = best_probe(train, labels, val, val_labels, classes)
    assert found.l2 in FURTHER[side] and found.edge == edge and found.converged
    assert found.accuracy == pytest.approx(theirs[found.l2], abs=0.005)
    assert found.accuracy > max(theirs[l2] for l2 in L2) + 0.01
    assert found.accuracy > max(theirs.values()) - 0.005
    assert found.doubts == (["is best with the weakest of all penalties tried, 0.0003"] if edge else [])


def test_every_class_keeps_its_share_of_a_large_training_set() -> None:
    labels = np.repeat(np.arange(4, dtype=np.int32), (6000, 3000, 999, 1))
    rows = spread(labels, 1000)
    assert np.bincount(labels[rows]).tolist() == [600, 300, 99, 1]
    assert (np.diff(rows) > 0).all()
    assert spread(labels, 10_000).tolist() == list(range(10_000))


def test_maps_are_averaged_over_their_places(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(pooling="none")
    build_caches(run)
    cache = cache_for(run)
    assert len(cache.feature_shape) == 3
    expected = cache.arrays("train", 1, np.float32)[0].mean((1, 2))
    np.testing.assert_allclose(vectors(cache, "train", 1), expected, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr("features.audit.moments.CHUNK_BYTES", 3 * 4 * int(np.prod(cache.feature_shape)))
    chosen = np.array([0, 2, 3, 5, 9, 11, 12])
    np.testing.assert_allclose(vectors(cache, "train", 1, chosen), expected[chosen], rtol=1e-5, atol=1e-6)


def test_views_that_hurt_are_seen_before_a_search(make_run: MakeRun) -> None:
    """Without colour, the tints that distinguish the classes are gone."""
    colourless = [{"layer": "RandomSaturation", "factor": [0.0, 0.0]}]
    run = make_run(augmentation=[{"layers": colourless, "name": "grey"}, "mild", {"policy": "none", "copies": 0}])
    build_caches(run)
    caches = {name: cache_for(run, name) for name in ("grey", "mild", "none")}
    found = view_accuracies(caches)
    assert list(found) == ["clean", "grey", "mild"]
    assert found["clean"] == found["mild"] == 1.0
    assert found["grey"] < 0.7
    file = run.workdir / "headhunt.yaml"
    file.write_text(commented_yaml(run))
    result = CliRunner().invoke(app, ["info", "--config", str(file), "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout.splitlines()[-1])
    assert facts["views"] == found
    assert facts["policies"] == {"grey": 1, "mild": 1, "none": 0}
    assert list(facts["contact_sheets"]) == ["grey", "mild", "none"]
    assert facts["contact_sheet"] == facts["contact_sheets"]["grey"]
