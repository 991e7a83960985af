"""The linear probe as a trial: solved on the clean photos of a worker's features, measured as every other head is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from search.heads import Weights
from search.population.sources import Features
from search.probe import fit_probe, log_probabilities
from search.trial import EpochMetrics, TrialConfig

CHUNK_BYTES = 64 << 20
"""Maps on their way to vectors are held up to this size at a time."""


class Solved(NamedTuple):
    """A probe: its configuration with the L2 that was chosen, its one row of curves, and its weights as a head has them."""

    config: TrialConfig
    metrics: EpochMetrics
    weights: Weights


def solve_probe(config: TrialConfig, data: Features) -> Solved:
    """Solves the probe of this configuration, whose optimizer is `lbfgs`; neither epochs nor seeds matter to it.

    The probe's penalty is l2 / 2 · ΣW², a head's `l2` · ΣW²: the configuration has half of what cross-validation chose. `loss`
    and `accuracy` are those of the clean training photos with the final weights.
    """
    assert config.optimizer.kind == "lbfgs"
    moments = data.moments
    train, val = standardised(data.train[0], moments), standardised(data.val, moments)
    labels, val_labels = np.asarray(data.train_labels), np.asarray(data.val_labels)
    folds = config.optimizer.folds
    probe = fit_probe(train, labels, data.classes, None if folds else 2 * config.head.l2, folds)
    seen, held = (log_probabilities(probe.kernel, probe.bias, features) for features in (train, val))
    better = (held > held[np.arange(len(held)), val_labels][:, None]).sum(-1)
    metrics = EpochMetrics(
        1,
        -float(seen[np.arange(len(seen)), labels].mean()),
        float((seen.argmax(-1) == labels).mean()),
        -float(held[np.arange(len(held)), val_labels].mean()),
        float((held.argmax(-1) == val_labels).mean()),
        float((better < 5).mean()),
        0.0,
    )
    solved = config.model_copy(
        update={
            "head": config.head.model_copy(update={"l2": probe.l2 / 2}),
            "optimizer": config.optimizer.model_copy(update={"folds": 0}),
        }
    )
    return Solved(solved, metrics, {"classifier.kernel": probe.kernel, "classifier.bias": probe.bias})


def standardised(
    features: Any, moments: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
) -> npt.NDArray[np.float32]:
    """Features (n, *feature_shape) as standardised vectors (n, dim) float32, see `averaged`."""
    mean, variance = moments
    vectors = averaged(features, len(mean))
    vectors -= mean
    vectors /= np.sqrt(variance)
    return vectors


def averaged(features: Any, width: int) -> npt.NDArray[np.float32]:
    """The first `width` of features (n, *feature_shape), an array or MappedFeatures, as vectors (n, width) float32; maps are
    averaged over their places."""
    rows = max(1, CHUNK_BYTES // (4 * int(np.prod(features.shape[1:]))))
    vectors = np.empty((len(features), width), np.float32)
    for start in range(0, len(features), rows):
        part = np.asarray(features[start : start + rows], np.float32)[..., :width]
        vectors[start : start + rows] = part.reshape(len(part), -1, width).mean(1)
    return vectors
