"""Baselines that train no network: class frequencies, and nearest neighbours and a linear probe on clean cached features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.audit.moments import averaged, feature_moments, standardised
from features.audit.probe import fit_probe, log_probabilities
from features.cache.feature_cache import FeatureCache
from features.dataset.index import SPLITS
from features.runtime.log import log
from train.evaluate import Metrics, Probabilities, SplitMetrics, measure, softmax

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

TEMPERATURE = 0.07
"""Temperature of the neighbours' weights (Wu et al., 2018)."""

CHUNK_BYTES = 64 << 20
"""Maximum size of the similarities held at a time."""


@dataclass(frozen=True)
class Measured:
    """A measured baseline: probabilities (n, classes) and true labels (n,) by split, and what validation chose."""

    probabilities: dict[str, Probabilities]
    labels: dict[str, Labels]
    chosen: dict[str, float]

    @property
    def metrics(self) -> SplitMetrics:
        """The baseline's metrics by split."""
        return SplitMetrics(**{split: measure(self.probabilities[split], self.labels[split]) for split in self.labels})


def clean_features(cache: FeatureCache, split: str) -> Features:
    """The clean features of a split as vectors (n, channels) float32; feature maps are averaged over their positions."""
    return averaged(cache.mapped(split), cache.feature_shape[-1])


def frequencies(labels: Labels, classes: int) -> npt.NDArray[np.float64]:
    """The share of each class: (classes,) float64."""
    return np.bincount(labels, minlength=classes) / len(labels)


def most_frequent_class(cache: FeatureCache, splits: Sequence[str] = SPLITS) -> Measured:
    """Predicts the most frequent training class for every photo, with the class frequencies as probabilities."""
    prior = frequencies(cache.labels("train"), len(cache.class_names)).astype(np.float32)
    labels = {split: cache.labels(split) for split in splits}
    return Measured({split: np.tile(prior, (len(own), 1)) for split, own in labels.items()}, labels, {})


def nearest_neighbours(cache: FeatureCache, candidates: Sequence[int], splits: Sequence[str] = SPLITS) -> Measured:
    """The vote of the k training photos with the most similar features; validation accuracy chooses k (ties: lower loss).

    A training photo is not its own neighbour. See `votes` for the probabilities.
    """
    train, labels, classes = clean_features(cache, "train"), cache.labels("train"), len(cache.class_names)
    prior = frequencies(labels, classes)
    most = min(max(candidates), len(train) - 1)

    def near(split: str) -> tuple[npt.NDArray[np.int64], Features]:
        return neighbours(train if split == "train" else clean_features(cache, split), train, most, split == "train")

    def voted(found: tuple[npt.NDArray[np.int64], Features], k: int) -> Probabilities:
        positions, similarities = found
        return votes(labels[positions[:, :k]], similarities[:, :k], prior)

    val, val_labels = near("val"), cache.labels("val")
    tried = {k: measure(voted(val, k), val_labels) for k in sorted({min(k, most) for k in candidates})}
    k = _best(tried)
    found = {split: voted(val if split == "val" else near(split), k) for split in splits}
    return Measured(found, {split: cache.labels(split) for split in splits}, {"k": k})


def neighbours(queries: Features, train: Features, k: int, same: bool) -> tuple[npt.NDArray[np.int64], Features]:
    """The k rows of `train` (n, dim) with the largest cosine similarity to each query (m, dim), nearest first: positions (m, k)
    int64 and cosines (m, k) float32. With `same`, queries are the training rows themselves, and none is its own neighbour."""
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
    """Probabilities (m, classes) from the labels (m, k) and cosines (m, k) of neighbours, nearest first.

    A neighbour's weight is exp((cosine - cosine of the nearest) / 0.07) (Wu et al., "Unsupervised Feature Learning via
    Non-Parametric Instance Discrimination", 2018, section 3.4). The class frequencies `prior` (classes,) count as one more
    neighbour, as near as the nearest, so that a class without neighbours is improbable, not impossible.
    """
    weights = np.exp((cosines - cosines[:, :1]).astype(np.float64) / TEMPERATURE)
    counted = np.tile(prior, (len(labels), 1))
    np.add.at(counted, (np.arange(len(labels))[:, None], labels), weights)
    probabilities: Probabilities = (counted / counted.sum(1, keepdims=True)).astype(np.float32)
    return probabilities


def linear_probe(cache: FeatureCache, splits: Sequence[str] = SPLITS) -> Measured:
    """The linear probe, as in a study's first trials, see `features.audit.probe`; cross-validation on the training photos chooses
    its L2."""
    features, labels = cache.mapped("train"), cache.labels("train")
    moments = feature_moments(cache.arrays("train")[0], cache.part_widths())
    probe = fit_probe(standardised(features, moments), labels, len(cache.class_names))
    for doubt in probe.doubts:
        log.print(f"Baseline: {doubt}", style="yellow")
    found = {
        split: softmax(log_probabilities(probe.kernel, probe.bias, standardised(cache.mapped(split), moments)))
        for split in splits
    }
    return Measured(
        found, {split: cache.labels(split) for split in splits}, {"l2": probe.l2 / 2}
    )  # for a head's penalty l2 · ΣW²


def _best(tried: dict[Any, Metrics]) -> Any:
    """The candidate with the highest validation accuracy; ties go to the lowest loss."""
    return min(tried, key=lambda candidate: (-tried[candidate].accuracy, tried[candidate].loss))


def _unit(features: Features) -> Features:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Features = features / np.maximum(lengths, 1e-12)
    return unit
