"""Schedules that are constant or only decay: constant, step decay, exponential, polynomial."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from search.schedules.base import ScheduleConfig, Steps


class Constant(ScheduleConfig):
    """The same rate throughout."""

    kind: Literal["constant"] = "constant"

    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        return np.ones_like(steps)


class StepDecay(ScheduleConfig):
    """Multiplied by `factor` every `every_epochs`, never below `floor` (or `learning_rate`, if that is lower)."""

    kind: Literal["step_decay"] = "step_decay"
    factor: float = Field(0.5, gt=0, lt=1)
    every_epochs: int = Field(10, ge=1)
    floor: float = Field(1e-6, ge=0, description="the lowest rate")

    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        decays = steps // (steps_per_epoch * self.every_epochs)
        return np.maximum(self.factor**decays, min(1.0, self.floor / self.learning_rate))


class Exponential(ScheduleConfig):
    """learning_rate × factor^(epochs passed / every_epochs), falling at every step; never below `floor`, as in step decay.

    Keras's ExponentialDecay with decay_steps = every_epochs × steps_per_epoch, and a floor.
    """

    kind: Literal["exponential"] = "exponential"
    factor: float = Field(0.5, gt=0, lt=1)
    every_epochs: int = Field(10, ge=1)
    floor: float = Field(1e-6, ge=0, description="the lowest rate")

    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        decays = steps / (steps_per_epoch * self.every_epochs)
        return np.maximum(self.factor**decays, min(1.0, self.floor / self.learning_rate))


class Polynomial(ScheduleConfig):
    """From learning_rate to `floor_share` of it at the end of the training: floor + (1 - floor) × (1 - step/steps)^power.

    `power` 1 is a straight line. Keras's PolynomialDecay with decay_steps = all steps; the "poly" policy of Caffe.
    """

    kind: Literal["polynomial"] = "polynomial"
    power: float = Field(1.0, gt=0, le=10)
    floor_share: float = Field(0.0, ge=0, lt=1, description="the last rate as a share of the highest")

    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        left: Steps = (1 - steps / max(1.0, total)) ** self.power
        return self.floor_share + (1 - self.floor_share) * left
