"""Cyclical schedules: up and down between two rates, linearly, step by step.

Smith, Cyclical Learning Rates for Training Neural Networks, 2015 (WACV 2017), section 3.2.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from search.schedules.base import ScheduleConfig, Steps


class Cyclical(ScheduleConfig):
    """low + (high - low) × max(0, 1 - |step/half - 2 × cycle + 1|) × amplitude, with cycle = floor(1 + step/(2 × half)).

    `high` is learning_rate, `low` is floor_share × learning_rate, `half` (the paper's step_size) is half_cycle_epochs in steps.
    """

    floor_share: float = Field(0.01, ge=0, lt=1, description="the lowest rate as a share of the highest")
    half_cycle_epochs: float = Field(5, gt=0, description="epochs from the lowest rate to the highest")

    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        half = self.half_cycle_epochs * steps_per_epoch
        cycle = np.floor(1 + steps / (2 * half))
        height = np.maximum(0, 1 - np.abs(steps / half - 2 * cycle + 1))
        shares: Steps = self.floor_share + (1 - self.floor_share) * height * self._amplitude(steps, cycle)
        return shares

    def _amplitude(self, steps: Steps, cycle: Steps) -> Steps:
        """The height of each step's cycle; `cycle` counts from 1."""
        return np.ones_like(steps)


class Triangular(Cyclical):
    """Cycles of the same height."""

    kind: Literal["triangular"] = "triangular"


class Triangular2(Cyclical):
    """Each cycle half as high as the one before: amplitude = 1/2^(cycle - 1)."""

    kind: Literal["triangular2"] = "triangular2"

    def _amplitude(self, steps: Steps, cycle: Steps) -> Steps:
        amplitude: Steps = 0.5 ** (cycle - 1)
        return amplitude


class ExpRange(Cyclical):
    """Cycles whose height shrinks by `gamma` every step (not every epoch): amplitude = gamma^step."""

    kind: Literal["exp_range"] = "exp_range"
    gamma: float = Field(0.99994, gt=0, le=1, description="factor per step")

    def _amplitude(self, steps: Steps, cycle: Steps) -> Steps:
        amplitude: Steps = self.gamma**steps
        return amplitude
