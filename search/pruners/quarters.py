"""Halving by quarters: after each quarter of the training, a trial ends unless it is in the better half of those that got there.

Successive halving (Jamieson and Talwalkar, Non-stochastic Best Arm Identification, 2016) with rungs spread evenly over the
training. Rungs after 1, 3, 9, … epochs judge a trial by its first epochs, when schedules that start slowly (warm-up) or decay
late (cosine) are behind. `python -m tests.benchmarks.evidence replay` replays completed studies under every pruner and prints
what each loses and saves.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from search.pruners.base import Judgement

PARTS = 4
"""Number of parts of about equal length into which the training is divided, with a rung after each but the last."""

KEPT = 0.5
"""Share of the trials that continue at each rung: 0.25 × (1 + 0.5 + 0.25 + 0.125) = 47 % of the epochs are trained, more if
values are tied."""


@dataclass(frozen=True)
class Quarters:
    """For trials of `epochs` epochs.

    A trial's rivals are all trials that have reached the rung, including all of its own generation, which is judged only when all
    of it is there. Trials are compared by their best value so far, like completed trials, and a tie with the last of the better
    half continues.
    """

    epochs: int

    def rungs(self) -> list[int]:
        rungs = {round(part * self.epochs / PARTS) for part in range(1, PARTS)}
        return sorted(rungs - {0, self.epochs})

    def prunes(self, judgement: Judgement) -> bool:
        rivals = [trial for trial in judgement.trials if judgement.until in trial.intermediate_values]
        values = sorted(map(judgement.so_far, rivals), reverse=True)
        return judgement.so_far(judgement.trial) < values[ceil(KEPT * len(values)) - 1]
