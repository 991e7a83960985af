"""What each augmentation policy costs: the accuracy of a linear probe trained only on its views.

A policy whose views are too unlike real photos costs a frozen network accuracy, however good the head. The probe shows that in
seconds, before a search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.audit.moments import averaged, feature_moments, standardised
from features.audit.probe import ProbePath, log_probabilities, spread
from features.cache.feature_cache import FeatureCache
from features.runtime.log import log

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

MOST_VIEWS = 2000
"""Most views to train a probe on, so that it takes about a second. Of more photos, the same share of every class is used; with
fewer, as many copies as fit."""

L2 = (0.3, 0.1, 0.03)
"""The penalties to choose from by validation accuracy, for the mean cross-entropy plus L2 / 2 · the sum of squared weights."""

FURTHER = {"strongest": (1.0, 3.0, 10.0, 30.0), "weakest": (0.01, 3e-3, 1e-3, 3e-4)}
"""The penalties beyond either end of L2, tried in turn while each is better than the one before."""


class ViewProbe(NamedTuple):
    """Validation accuracy of the best penalty. `edge` is `strongest` or `weakest` if that penalty is the last one tried in this
    direction; `converged`: whether its solver converged."""

    accuracy: float
    l2: float
    edge: str | None
    converged: bool

    @property
    def doubts(self) -> list[str]:
        """One clause per reason to doubt the accuracy."""
        found = [] if self.converged else [f"did not converge with the penalty {self.l2:g}"]
        if self.edge:
            found.append(f"is best with the {self.edge} of all penalties tried, {self.l2:g}")
        return found


def view_accuracies(caches: Mapping[str, FeatureCache]) -> dict[str, float]:
    """Accuracy on the clean validation photos of a probe trained on clean photos (`clean`), and on each policy's views, by name.

    `caches` are by policy name; those without augmented copies are left out. As many copies are used as MOST_VIEWS allows, at
    least copy 1. Maps are averaged over their positions.
    """
    first = next(iter(caches.values()))
    labels = first.labels("train")
    rows = spread(labels, MOST_VIEWS)
    val, val_labels, classes = vectors(first, "val"), first.labels("val"), len(first.class_names)
    fit = max(1, MOST_VIEWS // len(rows))
    views = {"clean": (first, [0])} | {
        name: (cache, range(1, min(cache.copies, fit) + 1)) for name, cache in caches.items() if cache.copies
    }
    found = {}
    for name, (cache, copies) in views.items():
        train = np.concatenate([vectors(cache, "train", copy, rows) for copy in copies])
        probe = best_probe(train, np.tile(labels[rows], len(copies)), val, val_labels, classes, first.part_widths())
        for doubt in probe.doubts:
            log.print(f"The probe on {name} views {doubt}: its accuracy may be too low.", style="yellow")
        found[name] = probe.accuracy
    return found


def best_probe(
    train: Vectors, labels: Labels, val: Vectors, val_labels: Labels, classes: int, widths: Sequence[int] = ()
) -> ViewProbe:
    """The best accuracy on `val` (m, dim) of a logistic regression on standardised `train` (n, dim), over the penalties in L2; if
    only the first or the last is best, also over those beyond it (FURTHER).

    `widths` are the numbers of columns of the features' parts.
    """
    moments = feature_moments(train, widths)
    path, val = ProbePath(standardised(train, moments), labels, classes), standardised(val, moments)

    def tried(l2: float) -> ViewProbe:
        probe = path.fit(l2)
        right = log_probabilities(probe.kernel, probe.bias, val).argmax(-1) == val_labels
        return ViewProbe(float(right.mean()), l2, None, probe.converged)

    found = [tried(l2) for l2 in L2]
    best = max(found, key=lambda each: each.accuracy)
    if sum(each.accuracy == best.accuracy for each in found) > 1 or best.l2 not in (L2[0], L2[-1]):
        return best
    edge = "strongest" if best.l2 == L2[0] else "weakest"
    for l2 in FURTHER[edge]:
        further = tried(l2)
        if further.accuracy <= best.accuracy:
            return best
        best = further
    return best._replace(edge=edge)


def vectors(cache: FeatureCache, split: str, copy: int = 0, rows: npt.NDArray[np.int64] | None = None) -> Vectors:
    """The features of a copy of a split as vectors (n, channels) float32; maps are averaged over their positions."""
    return averaged(cache.mapped(split, copy), cache.feature_shape[-1], rows)
