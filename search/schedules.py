"""Learning-rate schedules: one frozen class each; what they give is an array with one rate a step."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from features.config import Section

Rates = npt.NDArray[np.float32]


class ScheduleConfig(Section):
    """What every schedule has: the base rate, which is also the highest."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="the highest rate")

    def values(self, steps_per_epoch: int, epochs: int) -> Rates:
        """The learning rate of every step: (steps_per_epoch × epochs,) float32."""
        steps = np.arange(steps_per_epoch * epochs, dtype=np.float64)
        return (self.learning_rate * self._shares(steps, steps_per_epoch, epochs)).astype(np.float32)

    @abstractmethod
    def _shares(self, steps: npt.NDArray[np.float64], steps_per_epoch: int, epochs: int) -> npt.NDArray[np.float64]:
        """The rate of every step as a share of `learning_rate`."""


class Constant(ScheduleConfig):
    """The same rate throughout."""

    kind: Literal["constant"] = "constant"

    def _shares(self, steps: npt.NDArray[np.float64], steps_per_epoch: int, epochs: int) -> npt.NDArray[np.float64]:
        return np.ones_like(steps)


class StepDecay(ScheduleConfig):
    """Multiplied by `factor` every `every_epochs`, never below `floor`."""

    kind: Literal["step_decay"] = "step_decay"
    factor: float = Field(0.5, gt=0, lt=1)
    every_epochs: int = Field(10, ge=1)
    floor: float = Field(1e-6, ge=0, description="the lowest rate")

    def _shares(self, steps: npt.NDArray[np.float64], steps_per_epoch: int, epochs: int) -> npt.NDArray[np.float64]:
        decays = steps // (steps_per_epoch * self.every_epochs)
        return np.maximum(self.factor**decays, min(1.0, self.floor / self.learning_rate))


class Cyclical(ScheduleConfig):
    """Between `floor_share` × learning_rate and learning_rate and back, linearly, in two half cycles of `half_cycle_epochs`.

    Smith, Cyclical Learning Rates for Training Neural Networks, 2017, section 3.2.
    """

    floor_share: float = Field(0.01, ge=0, lt=1, description="the lowest rate as a share of the highest")
    half_cycle_epochs: float = Field(5, gt=0)

    def _shares(self, steps: npt.NDArray[np.float64], steps_per_epoch: int, epochs: int) -> npt.NDArray[np.float64]:
        half = self.half_cycle_epochs * steps_per_epoch
        cycle = np.floor(1 + steps / (2 * half))
        height = np.maximum(0, 1 - np.abs(steps / half - 2 * cycle + 1))
        amplitude = self._amplitude(steps, cycle)
        shares: npt.NDArray[np.float64] = self.floor_share + (1 - self.floor_share) * height * amplitude
        return shares

    def _amplitude(self, steps: npt.NDArray[np.float64], cycle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.ones_like(steps)


class Triangular(Cyclical):
    """Cycles of the same height."""

    kind: Literal["triangular"] = "triangular"


class Triangular2(Cyclical):
    """Cycles of half the height of the one before."""

    kind: Literal["triangular2"] = "triangular2"

    def _amplitude(self, steps: npt.NDArray[np.float64], cycle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        amplitude: npt.NDArray[np.float64] = 0.5 ** (cycle - 1)
        return amplitude


class ExpRange(Cyclical):
    """Cycles whose height shrinks by `gamma` every step (not every epoch)."""

    kind: Literal["exp_range"] = "exp_range"
    gamma: float = Field(0.99994, gt=0, le=1)

    def _amplitude(self, steps: npt.NDArray[np.float64], cycle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        amplitude: npt.NDArray[np.float64] = self.gamma**steps
        return amplitude


class CosineRestarts(ScheduleConfig):
    """Half a cosine down, then up again at once, each period `multiplier` times as long as the one before.

    Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, equation 5.
    """

    kind: Literal["cosine_restarts"] = "cosine_restarts"
    first_period_epochs: float = Field(10, gt=0)
    multiplier: float = Field(2.0, ge=1)
    floor_share: float = Field(0.0, ge=0, lt=1)

    def _shares(self, steps: npt.NDArray[np.float64], steps_per_epoch: int, epochs: int) -> npt.NDArray[np.float64]:
        position, start, period = np.empty_like(steps), 0.0, self.first_period_epochs * steps_per_epoch
        while start < len(steps):
            inside = (steps >= start) & (steps < start + period)
            position[inside] = (steps[inside] - start) / period
            start, period = start + period, period * self.multiplier
        return self.floor_share + (1 - self.floor_share) * 0.5 * (1 + np.cos(np.pi * position))


class WarmupCosine(ScheduleConfig):
    """Linearly up over `warmup_epochs`, then half a cosine down to the end of the training."""

    kind: Literal["warmup_cosine"] = "warmup_cosine"
    warmup_epochs: float = Field(2, ge=0)
    floor_share: float = Field(0.0, ge=0, lt=1)

    def _shares(self, steps: npt.NDArray[np.float64], steps_per_epoch: int, epochs: int) -> npt.NDArray[np.float64]:
        warmup = self.warmup_epochs * steps_per_epoch
        down = np.clip((steps - warmup) / max(1.0, len(steps) - warmup), 0, 1)
        falling = self.floor_share + (1 - self.floor_share) * 0.5 * (1 + np.cos(np.pi * down))
        return np.where(steps < warmup, (steps + 1) / max(1.0, warmup), falling)


Schedule = Annotated[
    Constant | StepDecay | Triangular | Triangular2 | ExpRange | CosineRestarts | WarmupCosine,
    Field(discriminator="kind"),
]
SCHEDULES: dict[str, type[ScheduleConfig]] = {
    "constant": Constant,
    "step_decay": StepDecay,
    "triangular": Triangular,
    "triangular2": Triangular2,
    "exp_range": ExpRange,
    "cosine_restarts": CosineRestarts,
    "warmup_cosine": WarmupCosine,
}
"""Every schedule by its kind."""
