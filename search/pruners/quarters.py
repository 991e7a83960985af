"""Halving by quarters: after each quarter of the training, a trial ends unless it is in the better half of those that got there.

Successive halving (Jamieson and Talwalkar, Non-stochastic Best Arm Identification, 2016) with rungs spread evenly over the
training. Rungs after 1, 3, 9, … epochs judge a trial by its beginning, where schedules that start slowly (a warm-up) or fall late
(a cosine) are behind. `python -m tests.benchmarks.evidence replay` replays complete studies under every pruner and prints what
each loses and saves.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from search.pruners.base import Judgement

PARTS = 4
"""The training is divided into so many parts of about equal length, with a rung after each but the last."""

KEPT = 0.5
"""The share of the trials that goes on at each rung: 0.25 × (1 + 0.5 + 0.25 + 0.125) = 47 % of the epochs are trained, and more
where values are equal."""


@dataclass(frozen=True)
class Quarters:
    """For trials of `epochs`.

    A trial's rivals are all that have reached the rung, those of its own generation included whatever their number: a generation
    is judged when all of it is there. It is compared by its best value so far, which is what a complete trial is worth, and goes
    on when it equals the last of the better half.
    """

    epochs: int

    def rungs(self) -> list[int]:
        rungs = {round(part * self.epochs / PARTS) for part in range(1, PARTS)}
        return sorted(rungs - {0, self.epochs})

    def prunes(self, judgement: Judgement) -> bool:
        rivals = [trial for trial in judgement.trials if judgement.until in trial.intermediate_values]
        values = sorted(map(judgement.so_far, rivals), reverse=True)
        return judgement.so_far(judgement.trial) < values[ceil(KEPT * len(values)) - 1]
