"""The one ranking: by the objective, then by validation loss, then by number.

Accuracies on a few photos tie often, and of two heads that name as many photos rightly the one with the lower loss is the surer.
Everything that chooses goes by this: the best epoch of a training, the leaders of a study, those that are confirmed and promoted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from search.metric import Metric, sign
from search.trial import EpochMetrics

if TYPE_CHECKING:
    import optuna

OPTIMISTIC = "optimistic, since the validation photos chose trials and epochs"
"""What the validation accuracy of a chosen trial or model is, wherever it is shown."""

VAL_LOSS = "val_loss"
"""The user attribute of a trial: the validation loss at its best epoch."""


class Score(NamedTuple):
    """How good an epoch, a training or a trial is: of two, the smaller score is the better."""

    value: float
    """The objective, negated where larger values are better."""
    val_loss: float

    @classmethod
    def of(cls, objective: Metric, value: float, val_loss: float = math.inf) -> Score:
        """Of the value of an objective and the validation loss, which older records do not have."""
        # The same share of the photos, computed in single and in double precision, is a tie.
        return cls(value if sign(objective) < 0 else -round(value, 6), val_loss)

    @classmethod
    def of_epoch(cls, objective: Metric, metrics: EpochMetrics) -> Score:
        """Of one epoch of a training."""
        return cls.of(objective, getattr(metrics, objective), metrics.val_loss)

    @classmethod
    def of_trial(cls, objective: Metric, trial: optuna.trial.FrozenTrial) -> Score:
        """Of a trial that ran to its end."""
        val_loss: Any = trial.user_attrs.get(VAL_LOSS, math.inf)
        return cls.of(objective, trial.value or 0.0, float(val_loss))


def best_place(objective: Metric, table: pd.DataFrame) -> int:
    """The place, from 0, of the best row of curves, of which at least one has numbers; the first of equals."""
    values = -sign(objective) * table[objective].to_numpy(np.float64)
    return int(np.lexsort((table["val_loss"].to_numpy(np.float64), values))[0])  # NaN comes last


ASKED = "asked"
"""The attribute that a search's trials have from their first moment on."""

ENQUEUED = "fixed_params"
"""Optuna's system attribute of a trial that somebody enqueued, and that a search takes up."""


def is_ours(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a search asked for this trial: others may add trials to a study, of any state, by `study.add_trial`."""
    is_taken = trial.state.name == "RUNNING" and ENQUEUED in trial.system_attrs
    return ASKED in trial.user_attrs or "config" in trial.user_attrs or is_taken


def is_added(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether others added this trial; one that has not ended yet may be a search's before it has its configuration."""
    return trial.state.is_finished() and not is_ours(trial)


def ranking(study: optuna.Study, objective: Metric) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study that ran to their end, best first; without what others added to it."""
    return ranked(filter(is_ours, study.get_trials(deepcopy=False)), objective)


def ranked(trials: Iterable[optuna.trial.FrozenTrial], objective: Metric) -> list[optuna.trial.FrozenTrial]:
    """Those of these trials that ran to their end, best first."""
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    return sorted(complete, key=lambda trial: (Score.of_trial(objective, trial), trial.number))
