"""The linear probe as a trial: solved on the clean photos of a worker's features, measured like every other head."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from features.audit.moments import standardised
from features.audit.probe import fit_probe, log_probabilities
from search.heads import Weights
from search.population.sources import Features
from search.top5 import TOP
from search.trial import EpochMetrics, TrialConfig


class Solved(NamedTuple):
    """A solved probe: its configuration with the chosen L2, its single row of curves, its weights as a head's, and reasons to
    doubt that it is optimal."""

    config: TrialConfig
    metrics: EpochMetrics
    weights: Weights
    doubts: tuple[str, ...] = ()


def solve_probe(config: TrialConfig, data: Features) -> Solved:
    """Solves the probe of this configuration, whose optimizer must be `lbfgs`; epochs and seed are ignored.

    The probe's penalty is l2 / 2 · ΣW², a head's is `l2` · ΣW², so the configuration gets half of the value that cross-validation
    chose. `loss` and `accuracy` are those of the clean training photos with the final weights.
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
        float((better < TOP).mean()),
        0.0,
    )
    solved = config.model_copy(
        update={
            "head": config.head.model_copy(update={"l2": probe.l2 / 2}),
            "optimizer": config.optimizer.model_copy(update={"folds": 0}),
        }
    )
    weights = {"classifier.kernel": probe.kernel, "classifier.bias": probe.bias}
    return Solved(solved, metrics, weights, probe.doubts)
