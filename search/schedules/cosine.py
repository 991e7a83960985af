"""Cosine schedules: a single decay, decay with warm restarts, and one cycle up and down."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from search.schedules.base import ScheduleConfig, Steps


class HalfCosine(ScheduleConfig):
    """Half a cosine down to the end of the training: floor + (1 - floor) × (1 + cos(π × step/steps))/2.

    Loshchilov and Hutter, SGDR, 2017, equation 5 without restarts; Keras's CosineDecay with decay_steps = all steps.
    """

    floor_share: float = Field(0.0, ge=0, lt=1, description="the last rate as a share of the highest")

    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        return _between(1.0, self.floor_share, steps / max(1.0, total))


class Cosine(HalfCosine):
    """Half a cosine from learning_rate down over the whole training."""

    kind: Literal["cosine"] = "cosine"


class WarmupCosine(HalfCosine):
    """The same with a warm-up of 2 epochs by default."""

    kind: Literal["warmup_cosine"] = "warmup_cosine"
    warmup_epochs: float = Field(2, ge=0, description="epochs of linear rise before the schedule")


class CosineRestarts(ScheduleConfig):
    """Half a cosine down, then a jump back up; each period is `multiplier` times as long as the one before.

    Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, equation 5. Keras's CosineDecayRestarts
    with m_mul=1. A period has at least one step.
    """

    kind: Literal["cosine_restarts"] = "cosine_restarts"
    first_period_epochs: float = Field(10, gt=0)
    multiplier: float = Field(2.0, ge=1)
    floor_share: float = Field(0.0, ge=0, lt=1, description="the lowest rate as a share of the highest")

    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        starts, period = [0.0], max(1.0, self.first_period_epochs * steps_per_epoch)
        while starts[-1] + period <= steps[-1]:
            starts.append(starts[-1] + period)
            period *= self.multiplier
        edges = np.array([*starts, starts[-1] + period])
        number = np.searchsorted(edges, steps, side="right") - 1
        return _between(1.0, self.floor_share, (steps - edges[number]) / np.diff(edges)[number])


class OneCycle(ScheduleConfig):
    """Up from `start_share` to learning_rate over `rise_share` of the training, then down to `floor_share`, both half cosines.

    Smith and Topin, Super-Convergence, 2018, in the two-phase cosine form of PyTorch's OneCycleLR (anneal_strategy="cos",
    three_phase=False, pct_start=0.3, div_factor=25, final_div_factor=1e4): the peak is at step rise_share × steps - 1, the lowest
    rate at the last step. The momentum, which the paper cycles in the opposite direction, stays constant.
    """

    kind: Literal["one_cycle"] = "one_cycle"
    rise_share: float = Field(0.3, gt=0, lt=1, description="share of the training during which the rate rises")
    start_share: float = Field(0.04, gt=0, le=1, description="the first rate as a share of the highest")
    floor_share: float = Field(4e-6, ge=0, lt=1, description="the last rate as a share of the highest")

    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        peak, end = self.rise_share * total - 1, total - 1
        rising = _between(self.start_share, 1.0, steps / max(peak, 1e-9))
        falling = _between(1.0, self.floor_share, (steps - peak) / max(end - peak, 1e-9))
        return np.where(steps <= peak, rising, falling)


def _between(start: float, end: float, position: Steps) -> Steps:
    """Half a cosine from `start` at position 0 to `end` at position 1; it stays there."""
    share: Steps = end + (start - end) * 0.5 * (1 + np.cos(np.pi * np.clip(position, 0, 1)))
    return share
