"""The probe of each policy's views, against scikit-learn's own logistic regression."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from features.build import build_caches
from features.cache import cache_for
from features.cli import app
from features.config import FeaturesRun
from features.probe import spread
from features.template import commented_yaml
from features.view_accuracies import L2, probe_accuracy, vectors, view_accuracies

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
    expected = []
    for l2 in L2:
        model = LogisticRegression(C=1 / (l2 * len(train)), max_iter=5000, tol=1e-6)
        expected.append(make_pipeline(StandardScaler(), model).fit(train, labels).score(val, val_labels))
    assert 0.3 < max(expected) < 0.98, "a problem that shows something"
    assert probe_accuracy(train, labels, val, val_labels, 5) == pytest.approx(max(expected), abs=0.0101)


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
    monkeypatch.setattr("features.moments.CHUNK_BYTES", 3 * 4 * int(np.prod(cache.feature_shape)))
    chosen = np.array([0, 2, 3, 5, 9, 11, 12])
    np.testing.assert_allclose(vectors(cache, "train", 1, chosen), expected[chosen], rtol=1e-5, atol=1e-6)


def test_views_that_hurt_are_seen_before_a_search(make_run: MakeRun) -> None:
    """Without colour, the tints by which the classes differ are gone."""
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
