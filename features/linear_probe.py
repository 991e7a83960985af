"""What each augmentation policy costs: the accuracy of a linear probe that is trained on its views alone.

A policy that makes photos unlike those that are to be recognised costs a frozen network accuracy, however good the head. The
probe says so in seconds, before a search.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from features.cache import FeatureCache

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

MOST_PHOTOS = 2000
"""Training photos of a probe, at most: it has to be a second's work. Of more, the same share of every class is taken."""

CHUNK_BYTES = 64 << 20
"""Features on their way into memory, at a time: maps are large."""

VARIANCE_FLOOR = 1e-4
"""Smallest variance that a feature is standardised by, as a share of the features' mean variance."""

L2 = (0.3, 0.1, 0.03)
"""The penalties that validation chooses among, for the mean cross-entropy plus L2 / 2 · the sum of squared weights."""

ITERATIONS = 100
"""Of L-BFGS for one penalty, at most."""


def view_accuracies(caches: Mapping[str, FeatureCache]) -> dict[str, float]:
    """Accuracy on the clean validation photos of a probe trained on clean photos (`clean`), and on each policy's views, by name.

    `caches` are those of the policies by name; those without augmented copies are left out. Every probe sees each photo once: the
    views are those of copy 1. Maps are averaged over their places.
    """
    first = next(iter(caches.values()))
    labels = first.labels("train")
    rows = spread(labels, MOST_PHOTOS)
    val, val_labels = vectors(first, "val"), first.labels("val")
    views = {"clean": (first, 0)} | {name: (cache, 1) for name, cache in caches.items() if cache.copies}
    return {
        name: probe_accuracy(vectors(cache, "train", copy, rows), labels[rows], val, val_labels)
        for name, (cache, copy) in views.items()
    }


def probe_accuracy(train: Vectors, labels: Labels, val: Vectors, val_labels: Labels) -> float:
    """The best accuracy on `val` (m, dim) of a logistic regression on standardised `train` (n, dim), over the penalties of L2.

    On one thread: small steps lose more to threads that wait for each other than they win.
    """
    from scipy.linalg import qr
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    mean, variance = train.mean(0, dtype=np.float64), train.var(0, dtype=np.float64)
    scale = np.sqrt(np.maximum(variance, max(VARIANCE_FLOOR * float(variance.mean()), 1e-12)))
    train, val = ((each - mean.astype(np.float32)) / scale.astype(np.float32) for each in (train, val))
    accuracies = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if train.shape[1] > len(
            train
        ):  # the weights lie in the span of the photos: as many numbers as photos say the same
            basis, coordinates = qr(train.T, mode="economic", check_finite=False)
            train, val = np.asarray(coordinates.T, np.float32), np.asarray(val @ basis, np.float32)
        for l2 in L2:
            probe = LogisticRegression(C=1 / (l2 * len(train)), max_iter=ITERATIONS, tol=1e-3).fit(train, labels)
            accuracies.append(float(probe.score(val, val_labels)))
    return max(accuracies)


def spread(labels: Labels, most: int) -> npt.NDArray[np.int64]:
    """The positions of about `most` photos, in order: the same share of every class, evenly spread, at least one of each."""
    if len(labels) <= most:
        return np.arange(len(labels))
    chosen = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = max(1, int(len(of_class) * most / len(labels)))
        chosen.append(of_class[np.linspace(0, len(of_class), count, endpoint=False).astype(np.int64)])
    return np.sort(np.concatenate(chosen))


def vectors(cache: FeatureCache, split: str, copy: int = 0, rows: npt.NDArray[np.int64] | None = None) -> Vectors:
    """The features of a copy of a split as vectors (n, channels) float32; maps are averaged over their places."""
    mapped = cache.mapped(split, copy)
    wanted = np.arange(len(mapped)) if rows is None else rows
    found = np.empty((len(wanted), cache.feature_shape[-1]), np.float32)
    at_a_time = max(1, CHUNK_BYTES // (4 * int(np.prod(cache.feature_shape))))
    for start in range(0, len(wanted), at_a_time):
        part = np.asarray(mapped[wanted[start : start + at_a_time]], np.float32)
        found[start : start + at_a_time] = part.reshape(len(part), -1, part.shape[-1]).mean(1)
    return found
