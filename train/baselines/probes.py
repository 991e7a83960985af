"""Baselines that train no network: class frequencies, and nearest neighbours and a linear probe on clean cached features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.cache import FeatureCache
from features.dataset import SPLITS
from search.heads import feature_moments
from train.evaluate import Metrics, Probabilities, measure, softmax

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

TEMPERATURE = 0.07
"""Of the neighbours' weights (Wu et al., 2018)."""

CHUNK_BYTES = 64 << 20
"""Similarities, and features on their way into memory, are held up to this size at a time."""

ITERATIONS = 200
"""Of L-BFGS for one penalty of the linear probe."""


@dataclass(frozen=True)
class Measured:
    """A baseline: its metrics by split, and what validation chose for it."""

    metrics: dict[str, Metrics]
    chosen: dict[str, float]


def clean_features(cache: FeatureCache, split: str) -> Features:
    """The clean features of a split as vectors (n, channels) float32; maps are averaged over their places."""
    mapped = cache.mapped(split)
    rows = max(1, CHUNK_BYTES // (4 * int(np.prod(cache.feature_shape))))
    vectors = np.empty((len(mapped), cache.feature_shape[-1]), np.float32)
    for start in range(0, len(mapped), rows):
        part = mapped[start : start + rows].astype(np.float32)
        vectors[start : start + rows] = part.reshape(len(part), -1, part.shape[-1]).mean(1)
    return vectors


def frequencies(labels: Labels, classes: int) -> npt.NDArray[np.float64]:
    """The share of each class: (classes,) float64."""
    return np.bincount(labels, minlength=classes) / len(labels)


def most_frequent_class(cache: FeatureCache) -> Measured:
    """Names the most frequent class of the training photos for every photo; its probabilities are the classes' frequencies."""
    prior = frequencies(cache.labels("train"), len(cache.class_names)).astype(np.float32)
    metrics = {}
    for split in SPLITS:
        labels = cache.labels(split)
        metrics[split] = measure(np.tile(prior, (len(labels), 1)), labels)
    return Measured(metrics, {})


def nearest_neighbours(cache: FeatureCache, candidates: Sequence[int]) -> Measured:
    """The vote of the k training photos with the most similar features; validation accuracy chooses k (ties: the loss).

    A training photo is not its own neighbour. See `votes` for the probabilities.
    """
    train, labels, classes = clean_features(cache, "train"), cache.labels("train"), len(cache.class_names)
    prior = frequencies(labels, classes)
    most = min(max(candidates), len(train) - 1)

    def near(split: str) -> tuple[npt.NDArray[np.int64], Features]:
        return neighbours(train if split == "train" else clean_features(cache, split), train, most, split == "train")

    def measured(split: str, found: tuple[npt.NDArray[np.int64], Features], k: int) -> Metrics:
        positions, similarities = found
        return measure(votes(labels[positions[:, :k]], similarities[:, :k], prior), cache.labels(split))

    val = near("val")
    tried = {k: measured("val", val, k) for k in sorted({min(k, most) for k in candidates})}
    k = _best(tried)
    return Measured(
        {"train": measured("train", near("train"), k), "val": tried[k], "test": measured("test", near("test"), k)},
        {"k": k},
    )


def neighbours(queries: Features, train: Features, k: int, same: bool) -> tuple[npt.NDArray[np.int64], Features]:
    """The k rows of `train` (n, dim) with the largest cosine to each query (m, dim), the nearest first: positions (m, k) and
    cosines (m, k). With `same`, queries are the training rows themselves, and none is its own neighbour."""
    unit = _unit(train)
    positions = np.empty((len(queries), k), np.int64)
    cosines = np.empty((len(queries), k), np.float32)
    rows = max(1, CHUNK_BYTES // (4 * len(train)))
    for start in range(0, len(queries), rows):
        part = slice(start, min(start + rows, len(queries)))
        similar = (unit[part] if same else _unit(queries[part])) @ unit.T
        if same:
            similar[np.arange(len(similar)), np.arange(part.start, part.stop)] = -np.inf
        some = np.sort(np.argpartition(-similar, k - 1, axis=1)[:, :k], axis=1)
        values = np.take_along_axis(similar, some, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        positions[part] = np.take_along_axis(some, order, axis=1)
        cosines[part] = np.take_along_axis(values, order, axis=1)
    return positions, cosines


def votes(labels: Labels, cosines: Features, prior: npt.NDArray[np.float64]) -> Probabilities:
    """Probabilities (m, classes) from the labels (m, k) and cosines (m, k) of neighbours, the nearest first.

    A neighbour weighs exp((cosine - cosine of the nearest) / 0.07) (Wu et al., "Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination", 2018, section 3.4). The classes' frequencies `prior` (classes,) count as one more neighbour as near
    as the nearest, spread over the classes, so that a class without a neighbour is improbable, not impossible.
    """
    weights = np.exp((cosines - cosines[:, :1]).astype(np.float64) / TEMPERATURE)
    counted = np.tile(prior, (len(labels), 1))
    np.add.at(counted, (np.arange(len(labels))[:, None], labels), weights)
    probabilities: Probabilities = (counted / counted.sum(1, keepdims=True)).astype(np.float32)
    return probabilities


def linear_probe(cache: FeatureCache, candidates: Sequence[float]) -> Measured:
    """Multinomial logistic regression on standardised features; validation accuracy chooses its L2 penalty (ties: the loss).

    The penalties are tried from the strongest on, until one is worse than the best before it in both accuracy and loss: weaker
    ones take longest to fit and only fit the training photos better.
    """
    features, labels = clean_features(cache, "train"), cache.labels("train")
    mean, variance = feature_moments(features, cache.part_widths())

    def standardised(raw: Features) -> Features:
        return np.asarray((raw - mean) / np.sqrt(variance), np.float32)

    train, val = standardised(features), standardised(clean_features(cache, "val"))
    weights: npt.NDArray[np.float64] | None = None
    tried: dict[float, Metrics] = {}
    fitted = {}
    for l2 in sorted(set(candidates), reverse=True):  # each starts from the one before: from strong to weak is short
        weights = fit_linear(train, labels, len(cache.class_names), l2, weights)
        tried[l2] = measure(linear_probabilities(weights, val), cache.labels("val"))
        fitted[l2] = weights.astype(np.float32)
        best = tried[_best(tried)]
        if tried[l2]["accuracy"] < best["accuracy"] and tried[l2]["loss"] > best["loss"]:
            break
    l2 = _best(tried)
    test = standardised(clean_features(cache, "test"))
    metrics = {
        "train": measure(linear_probabilities(fitted[l2], train), labels),
        "val": tried[l2],
        "test": measure(linear_probabilities(fitted[l2], test), cache.labels("test")),
    }
    return Measured(metrics, {"l2": l2})


def fit_linear(
    features: Features, labels: Labels, classes: int, l2: float, start: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """Weights (dim + 1, classes) float64, the bias last, that minimise `objective`, by L-BFGS from `start` or from zeros.

    On one thread: its many small steps lose more to threads that wait for each other than they win.
    """
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    shape = (features.shape[1] + 1, classes)
    with threadpool_limits(1):
        found = minimize(
            objective,
            np.zeros(shape).ravel() if start is None else start.ravel(),
            args=(features, labels, l2),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": ITERATIONS, "ftol": 1e-6, "gtol": 1e-5},
        )
    weights: npt.NDArray[np.float64] = found.x.reshape(shape)
    return weights


def objective(
    flat: npt.NDArray[np.float64], features: Features, labels: Labels, l2: float
) -> tuple[float, npt.NDArray[np.float64]]:
    """Mean cross-entropy + l2 / 2 · the sum of squared weights (without the bias), and its gradient by `flat`.

    `flat` are the weights (dim + 1, classes), raveled; products are computed in float32, sums in float64.
    """
    weights = flat.reshape(features.shape[1] + 1, -1)
    logits = features @ weights[:-1].astype(np.float32) + weights[-1].astype(np.float32)
    logits -= logits.max(1, keepdims=True)
    rows = np.arange(len(labels))
    truth = logits[rows, labels].astype(np.float64)
    np.exp(logits, out=logits)
    total = logits.sum(1, dtype=np.float64)
    loss = float((np.log(total) - truth).mean() + l2 / 2 * np.square(weights[:-1]).sum())
    logits /= total[:, None].astype(np.float32)
    logits[rows, labels] -= 1
    gradient = np.empty_like(weights)
    gradient[:-1] = (features.T @ logits) / len(labels) + l2 * weights[:-1]
    gradient[-1] = logits.mean(0, dtype=np.float64)
    return loss, gradient.ravel()


def linear_probabilities(weights: npt.NDArray[Any], features: Features) -> Probabilities:
    """Probabilities (n, classes) of standardised features (n, dim)."""
    small = weights.astype(np.float32)
    return softmax(features @ small[:-1] + small[-1])


def _best(tried: dict[Any, Metrics]) -> Any:
    """The candidate with the highest validation accuracy, of these the one with the lowest loss."""
    return min(tried, key=lambda candidate: (-tried[candidate]["accuracy"], tried[candidate]["loss"]))


def _unit(features: Features) -> Features:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Features = features / np.maximum(lengths, 1e-12)
    return unit
