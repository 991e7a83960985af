"""Complete studies, replayed under a pruner: which trials would have ended where, what is lost, and what is saved.

The judgements are those of `search.pruners`, in the driver's order: generations of eight, rung by rung.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import optuna

from search.pruners.base import Pruner
from search.pruners.choice import is_pruned

Values = npt.NDArray[np.float64]
"""(trials, epochs): the objective of each trial, epoch by epoch; the larger the better."""


class Costs(NamedTuple):
    """What trials take, in seconds of a worker: `start` (trials,) before the first epoch, `epoch` (trials,) for each one."""

    start: Values
    epoch: Values


class Replayed(NamedTuple):
    """What a pruner did: how many epochs each trial trained (trials,), and which trained to their end (trials,)."""

    epochs: npt.NDArray[np.int64]
    complete: npt.NDArray[np.bool_]


def replay(values: Values, pruner: Pruner, generation: int = 8) -> Replayed:
    """The study of these trials in this order, under a pruner."""
    trials: list[optuna.trial.FrozenTrial] = []
    ends = values.shape[1]
    for first in range(0, len(values), generation):
        alive = list(range(first, min(first + generation, len(values))))
        for number in alive:
            trials.append(optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, intermediate_values={}))
            trials[number].number = number
        had = 0
        for until in (*pruner.rungs(), ends):
            for number in alive:
                reported = range(had + 1, until + 1)
                trials[number].intermediate_values |= {e: float(values[number, e - 1]) for e in reported}
            had = until
            if until < ends:
                alive = [number for number in alive if not is_pruned(pruner, trials, number, until, "val_accuracy")]
        for number in range(first, len(trials)):
            state = optuna.trial.TrialState.COMPLETE if number in alive else optuna.trial.TrialState.PRUNED
            trials[number].state = state
    epochs = np.array([len(trial.intermediate_values) for trial in trials])
    return Replayed(epochs, epochs == ends)


def regret(values: Values, replayed: Replayed) -> float:
    """How much better the study's best trial is than the best of those that were not pruned; NaN where all were."""
    worth = values.max(1)
    kept = worth[replayed.complete]
    return float(worth.max() - kept.max()) if len(kept) else float("nan")


def seconds(replayed: Replayed, rungs: Sequence[int], costs: Costs, workers: int = 2, generation: int = 8) -> float:
    """What the search takes: at every rung a generation waits for its slowest worker; the longest tasks are begun first."""
    total, edges = 0.0, [0, *rungs, int(replayed.epochs.max())]
    for first in range(0, len(replayed.epochs), generation):
        own = slice(first, first + generation)
        for start, until in pairwise(edges):
            tasks = np.where(replayed.epochs[own] >= until, (until - start) * costs.epoch[own], 0.0)
            tasks = tasks + (costs.start[own] if start == 0 else 0.0)
            busy = np.zeros(workers)
            for task in np.sort(tasks)[::-1]:
                busy[busy.argmin()] += task
            total += busy.max()
    return total
