"""What each pruner loses and saves on complete studies: a table, over many orders and subsets of their trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from search.pruners.choice import PrunerName, make_pruner
from tests.benchmarks.evidence.replay import Costs, Values, regret, replay, seconds

START_SECONDS, COMPILE_SECONDS = 0.1, 1.8
"""Of one core, measured on an idle machine: a trial's weights and its place in the study; a program that was not compiled yet."""

EPOCH_SECONDS = 0.06
"""An epoch of a head with one hidden layer of 256 on 1,357 photos of 1,280 features."""


def table(studies: Sequence[Path], resamplings: int, trials: int = 40) -> pd.DataFrame:
    """A row for each pruner: mean and 90 % quantile of the regret in points, the share of the epochs, complete trials, and the
    seconds of a search whose trials have a program each or share one; the means over studies of equal weight."""
    rows = []
    for study in studies:
        values = load_values(study)
        for name in get_args(PrunerName):
            pruner = make_pruner(name, values.shape[1])
            found = []
            for resampling in range(resamplings):
                order = np.random.default_rng(resampling).permutation(len(values))[:trials]
                sample = values[order]
                done = replay(sample, pruner)
                taken = [seconds(done, pruner.rungs(), costs) for costs in _costs(len(sample))]
                share = done.epochs.sum() / sample.size
                found.append((100 * regret(sample, done), share, done.complete.sum(), *taken))
            lost, *others = np.array(found).T
            means = [np.nanmean(lost), np.nanquantile(lost, 0.9), *(other.mean() for other in others)]
            rows.append((f"{study.parent.name}/{study.name}", name, *means))
    columns = ["study", "pruner", "regret", "regret_90", "epochs", "complete", "seconds_programs", "seconds_shared"]
    return pd.DataFrame(rows, columns=columns)


def load_values(study: Path) -> Values:
    """The validation accuracies of a study's trials that ran to their end."""
    values = np.load(study / "curves.npz")["val_accuracy"].astype(np.float64)
    complete: Values = values[np.isfinite(values).all(1)]
    return complete


def _costs(trials: int) -> list[Costs]:
    epoch = np.full(trials, EPOCH_SECONDS)
    own = np.full(trials, START_SECONDS + COMPILE_SECONDS)
    shared = np.full(trials, START_SECONDS)
    shared[0] += COMPILE_SECONDS
    return [Costs(own, epoch), Costs(shared, epoch)]
