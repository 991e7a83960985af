"""What each augmentation policy costs: the accuracy of a linear probe that is trained on its views alone.

A policy that makes photos unlike those that are to be recognised costs a frozen network accuracy, however good the head. The
probe says so in seconds, before a search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from features.cache import FeatureCache
from features.moments import averaged, feature_moments, standardised
from features.probe import fit_path, log_probabilities, spread

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

MOST_PHOTOS = 2000
"""Training photos of a probe, at most: it has to be a second's work. Of more, the same share of every class is taken."""

L2 = (0.3, 0.1, 0.03)
"""The penalties that validation chooses among, for the mean cross-entropy plus L2 / 2 · the sum of squared weights."""


def view_accuracies(caches: Mapping[str, FeatureCache]) -> dict[str, float]:
    """Accuracy on the clean validation photos of a probe trained on clean photos (`clean`), and on each policy's views, by name.

    `caches` are those of the policies by name; those without augmented copies are left out. Every probe sees each photo once: the
    views are those of copy 1. Maps are averaged over their places.
    """
    first = next(iter(caches.values()))
    labels = first.labels("train")
    rows = spread(labels, MOST_PHOTOS)
    val, val_labels, classes = vectors(first, "val"), first.labels("val"), len(first.class_names)
    views = {"clean": (first, 0)} | {name: (cache, 1) for name, cache in caches.items() if cache.copies}
    return {
        name: probe_accuracy(
            vectors(cache, "train", copy, rows), labels[rows], val, val_labels, classes, first.part_widths()
        )
        for name, (cache, copy) in views.items()
    }


def probe_accuracy(
    train: Vectors, labels: Labels, val: Vectors, val_labels: Labels, classes: int, widths: Sequence[int] = ()
) -> float:
    """The best accuracy on `val` (m, dim) of a logistic regression on standardised `train` (n, dim), over the penalties of L2.

    `widths` are the columns of each part of the features.
    """
    moments = feature_moments(train, widths)
    train, val = (standardised(each, moments) for each in (train, val))
    return max(
        float((log_probabilities(probe.kernel, probe.bias, val).argmax(-1) == val_labels).mean())
        for probe in fit_path(train, labels, classes, L2)
    )


def vectors(cache: FeatureCache, split: str, copy: int = 0, rows: npt.NDArray[np.int64] | None = None) -> Vectors:
    """The features of a copy of a split as vectors (n, channels) float32; maps are averaged over their places."""
    return averaged(cache.mapped(split, copy), cache.feature_shape[-1], rows)
