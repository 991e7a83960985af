"""The single ranking: by the objective, then by validation loss, then by number.

Accuracies on few photos often tie; between two heads with equally many correct photos, the one with the lower loss is more
reliable. Every choice uses this ranking: the best epoch of a training, the leaders of a study, the confirmed and the promoted
trials.
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

OPTIMISTIC = "optimistic, because trials and epochs were chosen on the validation photos"
"""Shown wherever the validation accuracy of a chosen trial or model is shown."""

VAL_LOSS = "val_loss"
"""The user attribute of a trial: the validation loss at its best epoch."""


class Score(NamedTuple):
    """How good an epoch, a training or a trial is; smaller scores are better."""

    value: float
    """The objective, negated if larger values are better."""
    val_loss: float

    @classmethod
    def of(cls, objective: Metric, value: float, val_loss: float = math.inf) -> Score:
        """The score of an objective value and a validation loss (absent in older records)."""
        # Rounded so that the same share, computed in single and double precision, is a tie.
        return cls(value if sign(objective) < 0 else -round(value, 6), val_loss)

    @classmethod
    def of_epoch(cls, objective: Metric, metrics: EpochMetrics) -> Score:
        """The score of one epoch of a training."""
        return cls.of(objective, getattr(metrics, objective), metrics.val_loss)

    @classmethod
    def of_trial(cls, objective: Metric, trial: optuna.trial.FrozenTrial) -> Score:
        """The score of a completed trial."""
        val_loss: Any = trial.user_attrs.get(VAL_LOSS, math.inf)
        return cls.of(objective, trial.value or 0.0, float(val_loss))


def best_place(objective: Metric, table: pd.DataFrame) -> int:
    """The index of the best row of curves, the first among ties; at least one row must have numbers."""
    values = -sign(objective) * table[objective].to_numpy(np.float64)
    return int(np.lexsort((table["val_loss"].to_numpy(np.float64), values))[0])  # NaN comes last


ASKED = "asked"
"""The user attribute that a search's trials have from the moment they exist."""

ENQUEUED = "fixed_params"
"""Optuna's system attribute of an enqueued trial."""


def is_from_search(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a search asked for this trial; trials in any state can also be added from outside by `study.add_trial`."""
    is_taken = trial.state.name == "RUNNING" and ENQUEUED in trial.system_attrs
    return ASKED in trial.user_attrs or "config" in trial.user_attrs or is_taken


def is_external(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether this trial, or its value, came from outside; false for unfinished trials, which may be a search's own."""
    told = trial.state.name == "COMPLETE" and ASKED in trial.user_attrs and "best_epoch" not in trial.user_attrs
    return trial.state.is_finished() and (told or not is_from_search(trial))


def ranking(study: optuna.Study, objective: Metric) -> list[optuna.trial.FrozenTrial]:
    """The completed trials of a study, best first; see `ranked`."""
    return ranked(study.get_trials(deepcopy=False), objective)


def ranked(trials: Iterable[optuna.trial.FrozenTrial], objective: Metric) -> list[optuna.trial.FrozenTrial]:
    """The completed ones of these trials, best first, without those added from outside."""
    complete = [trial for trial in trials if trial.state.name == "COMPLETE" and not is_external(trial)]
    return sorted(complete, key=lambda trial: (Score.of_trial(objective, trial), trial.number))
