"""The median rule: a trial ends if its best value so far is below the median of the completed trials at the same epoch.

Golovin et al., Google Vizier, 2017, section 3.2.2, as implemented by Optuna's MedianPruner.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from search.pruners.base import Judgement

STARTUP_TRIALS = 5
"""Number of completed trials before any is pruned."""

PARTS = 8
"""Trials are judged after each eighth of the training."""


@dataclass(frozen=True)
class Median:
    """For trials of `epochs` epochs."""

    epochs: int

    def rungs(self) -> list[int]:
        stride = -(-self.epochs // PARTS)
        return list(range(stride, self.epochs, stride))

    def prunes(self, judgement: Judgement) -> bool:
        complete = [trial for trial in judgement.trials if trial.state.name == "COMPLETE"]
        values = [judgement.at_rung(trial) for trial in complete if judgement.until in trial.intermediate_values]
        if len(complete) < STARTUP_TRIALS or not values:
            return False
        return judgement.so_far(judgement.trial) < median(values)
