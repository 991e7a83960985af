"""The linear probe: its gradient, its optimum against scikit-learn's, and the penalty that cross-validation chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import check_grad

from features.audit import probe as probes
from features.audit.probe import DECADES, MOST_DECADES, START, Probe, fit_probe, fold_of, log_probabilities, objective

pytestmark = pytest.mark.unit


def clusters(photos: int, classes: int, dim: int, noise: float = 1.5, seed: int = 0) -> tuple[Any, Any]:
    """Standardised overlapping clusters: features (photos, dim) float32, labels (photos,)."""
    labels = np.arange(photos, dtype=np.int32) % classes
    centres = np.random.default_rng(99).normal(0, 1, (classes, dim))
    features = centres[labels] + np.random.default_rng(seed).normal(0, noise, (photos, dim))
    return ((features - features.mean(0)) / features.std(0)).astype(np.float32), labels


def loss_of(probe: Probe, features: Any, labels: Any) -> float:
    """The objective of a probe, by definition."""
    right = log_probabilities(probe.kernel, probe.bias, features)[np.arange(len(labels)), labels]
    return float(-right.mean() + probe.l2 / 2 * np.square(probe.kernel.astype(np.float64)).sum())


def test_the_gradient_is_that_of_the_objective() -> None:
    features, labels = clusters(30, 3, 4)
    weights = np.random.default_rng(3).normal(0, 0.3, (5, 3))
    loss, gradient = objective(weights, features, labels, 0.1)
    small = weights.astype(np.float32)
    assert loss == pytest.approx(loss_of(Probe(small[:-1], small[-1], 0.1), features, labels), rel=1e-5)
    wrong = check_grad(
        lambda flat: objective(flat.reshape(5, 3), features, labels, 0.1)[0],
        lambda flat: objective(flat.reshape(5, 3), features, labels, 0.1)[1].ravel(),
        weights.ravel(),
        epsilon=1e-2,  # the loss uses float32 products
    )
    assert wrong < 2e-2 * np.linalg.norm(gradient)


@pytest.mark.parametrize(("photos", "dim"), [(300, 12), (60, 90)], ids=["more photos", "more features"])
@pytest.mark.parametrize("l2", [1.0, 0.01, 1e-4])
def test_the_optimum_is_the_one_that_scikit_learn_finds(photos: int, dim: int, l2: float) -> None:
    from sklearn.linear_model import LogisticRegression

    features, labels = clusters(photos, 5, dim)
    ours = fit_probe(features, labels, 5, l2)
    peer = LogisticRegression(C=1 / (l2 * photos), tol=1e-10, max_iter=20_000)
    peer.fit(features.astype(np.float64), labels)
    found = np.exp(log_probabilities(ours.kernel, ours.bias, features))
    assert found == pytest.approx(peer.predict_proba(features), abs=2e-3)
    theirs = Probe(peer.coef_.T.astype(np.float32), peer.intercept_.astype(np.float32), l2)
    assert loss_of(ours, features, labels) == pytest.approx(loss_of(theirs, features, labels), rel=1e-4)


def test_cross_validation_chooses_a_strong_penalty_for_noise_and_a_weak_one_for_clear_classes() -> None:
    noise = fit_probe(*clusters(120, 4, 30, noise=20), 4)
    clear = fit_probe(*clusters(120, 4, 30, noise=0.3), 4)
    assert noise.l2 > 0.1 > 0.001 > clear.l2


def test_the_chosen_penalty_is_near_the_best_of_scikit_learns_cross_validation() -> None:
    """By the mean loss on held-out photos, over the test's own folds and grid."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    features, labels = clusters(240, 4, 20, noise=4)
    chosen = fit_probe(features, labels, 4).l2

    def score(l2: float) -> float:
        model = LogisticRegression(C=1 / (l2 * 160), max_iter=5000)
        return float(cross_val_score(model, features, labels, cv=3, scoring="neg_log_loss").mean())

    best = max(score(l2) for l2 in np.geomspace(1e-4, 100, 13))
    assert score(chosen) > best - 0.02 * abs(best)


@pytest.mark.parametrize("dim", [3, 40])
def test_features_that_say_nothing_give_the_classes_frequencies(dim: int) -> None:
    """Fewer and more columns than photos: both ways of computing axes handle features without variance."""
    labels = np.repeat(np.arange(3), (10, 6, 4)).astype(np.int32)
    probe = fit_probe(np.zeros((20, dim), np.float32), labels, 3)
    said = np.exp(log_probabilities(probe.kernel, probe.bias, np.zeros((1, dim), np.float32)))[0]
    assert said == pytest.approx([0.5, 0.3, 0.2], abs=1e-3)
    assert np.isfinite(probe.kernel).all()


def test_the_same_numbers_again_and_those_of_the_chosen_penalty() -> None:
    features, labels = clusters(90, 3, 100)
    first, again = fit_probe(features, labels, 3), fit_probe(features, labels, 3)
    given = fit_probe(features, labels, 3, first.l2)
    for other in (again, given):
        assert np.array_equal(first.kernel, other.kernel) and np.array_equal(first.bias, other.bias)


def test_folds_share_out_every_class_and_a_class_of_one_photo_is_in_one_of_them() -> None:
    labels = np.repeat(np.arange(4, dtype=np.int32), [1, 2, 9, 30])
    folds = fold_of(labels, 3)
    counts = [[int(((folds == fold) & (labels == label)).sum()) for fold in range(3)] for label in range(4)]
    assert all(max(row) - min(row) <= 1 for row in counts)
    assert max(map(sum, zip(*counts, strict=True))) - min(map(sum, zip(*counts, strict=True))) <= 1
    assert np.isfinite(fit_probe(np.eye(42, dtype=np.float32), labels, 4).kernel).all()


def graded(features: int) -> tuple[Any, Any]:
    """Features that each tell a little about two classes; each has a tenth of the variance of the one before."""
    random, labels = np.random.default_rng(2), np.arange(1200, dtype=np.int32) % 2
    signal = 0.5 * np.where(labels == 1, 1, -1)[:, None] + random.normal(0, 1, (1200, features))
    return (signal * 10 ** (-0.5 * np.arange(features))).astype(np.float32), labels


def decades(probe: Probe, features: Any) -> float:
    """How many decades the penalty is weaker than the first of cross-validation."""
    return float(np.log10(START * np.square(features.astype(np.float64)).mean(0).sum() / probe.l2))


@pytest.mark.parametrize(("features", "edge"), [(10, None), (14, "weakest")])
def test_a_best_penalty_beyond_the_grid_is_looked_for_and_the_end_is_said(features: int, edge: Any) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    train, labels = graded(features)
    found = fit_probe(train, labels, 2)
    gone = decades(found, train)
    assert DECADES + 0.5 < gone <= MOST_DECADES + 0.5
    assert found.edge == edge and found.converged
    if edge:
        (doubt,) = found.doubts
        assert "is the weakest of its grid, even extended by 4 decades; a weaker one may be better" in doubt
        return
    assert not found.doubts

    def score(l2: float) -> float:
        model = LogisticRegression(C=1 / (l2 * 800), solver="newton-cholesky", max_iter=500)
        return float(cross_val_score(model, train.astype(np.float64), labels, cv=3, scoring="neg_log_loss").mean())

    assert score(found.l2) > score(found.l2 * 10**gone / 10**DECADES) + 0.01
    assert score(found.l2) > score(found.l2 / 10) - 0.02


def test_the_strongest_penalty_of_the_grid_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels independent of the features. From a much weaker start: 8 decades beyond the usual one, the penalty leaves
    nothing of the features, and a still stronger one could not be better."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score

    random = np.random.default_rng(2)
    features = random.normal(0, 1, (60, 20)).astype(np.float32)
    labels = random.permutation(np.arange(60, dtype=np.int32) % 2)
    assert fit_probe(features, labels, 2).edge is None
    monkeypatch.setattr(probes, "START", 1e-9)
    found = fit_probe(features, labels, 2)
    gone = np.log10(found.l2 / (1e-9 * np.square(features.astype(np.float64)).mean(0).sum()))
    assert (found.edge, gone) == ("strongest", pytest.approx(MOST_DECADES + 0.5))
    (doubt,) = found.doubts
    assert "is the strongest of its grid, even extended by 4 decades; a stronger one may be better" in doubt

    def score(l2: float) -> float:
        model = LogisticRegression(C=1 / (l2 * 40), solver="newton-cholesky", max_iter=500)
        return float(cross_val_score(model, features, labels, cv=3, scoring="neg_log_loss").mean())

    assert score(10 * found.l2) > score(found.l2) > score(found.l2 / 10)


def test_a_solver_that_does_not_converge_goes_on_and_says_so_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters(300, 5, 12)
    whole = fit_probe(features, labels, 5, 1e-4)
    assert whole.converged and not whole.doubts
    monkeypatch.setattr(probes, "ITERATIONS", 12)
    in_rounds = fit_probe(features, labels, 5, 1e-4)
    assert in_rounds.converged
    assert loss_of(in_rounds, features, labels) == pytest.approx(loss_of(whole, features, labels), rel=1e-5)
    monkeypatch.setattr(probes, "ITERATIONS", 1)
    (doubt,) = fit_probe(features, labels, 5, 1e-4).doubts
    assert doubt == "the linear probe did not converge in 4 iterations (penalty 0.0001)."
