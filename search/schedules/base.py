"""ScheduleConfig, the base of every schedule: settings in, learning rates out.

A schedule's class gives its rate at every step as a share of `learning_rate`, and nothing else. `values` and `rates_of_epoch`
are the arrays that a search trains with; `search.schedules.keras_form` has the same numbers for Keras.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from features.runtime.section import Section

Rates = npt.NDArray[np.float32]
Steps = npt.NDArray[np.float64]
"""Steps counted from 0, after the warm-up; and shares of `learning_rate`, one for each of them."""


class ScheduleConfig(Section):
    """The base rate, which is also the highest, and the warm-up that any schedule may begin with.

    Over the first `warmup_epochs` the rate rises linearly to what the schedule starts with: `(step + 1) / warm-up steps` of it,
    so never 0. Then the schedule itself runs, over the epochs that are left. A training no longer than its warm-up only rises.
    """

    follows_loss: ClassVar[bool] = False
    """Whether the rates depend on the validation losses, so that there are none before the training."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="the highest rate")
    warmup_epochs: float = Field(0, ge=0, description="a linear rise before it")

    def values(self, steps_per_epoch: int, epochs: int) -> Rates:
        """The learning rate of every step: (steps_per_epoch × epochs,) float32.

        ValueError where the rates follow the validation loss (`follows_loss`): ask `rates_of_epoch` then.
        """
        total = steps_per_epoch * epochs
        steps = np.arange(total, dtype=np.float64)
        warmup = min(self.warmup_epochs * steps_per_epoch, total)
        shares = self._shares(np.maximum(steps - warmup, 0), steps_per_epoch, total - warmup)
        first = self._shares(np.zeros(1), steps_per_epoch, total - warmup)
        rising = first * np.minimum((steps + 1) / max(1.0, warmup), 1)
        return (self.learning_rate * np.where(steps < warmup, rising, shares)).astype(np.float32)

    def rates_of_epoch(self, epoch: int, steps_per_epoch: int, epochs: int, val_losses: Sequence[float] = ()) -> Rates:
        """The learning rate of every step of an epoch (counted from 0): (steps_per_epoch,) float32.

        A pure function of its arguments: `val_losses` are the validation losses of the epochs before this one, from the first on
        (later ones are not looked at; a schedule that was planned in advance looks at none). ValueError for an epoch that is not
        part of the training, and where losses are needed and missing.
        """
        check_epoch(epoch, epochs)
        return self.values(steps_per_epoch, epochs)[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch]

    @abstractmethod
    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        """The rate at these steps, counted from the end of the warm-up, as a share of `learning_rate`; `total` steps are left
        then. Each share depends on its own step alone."""


def check_epoch(epoch: int, epochs: int) -> None:
    """ValueError for an epoch (counted from 0) that is not part of the training."""
    if not 0 <= epoch < epochs:
        raise ValueError(f"`0 <= epoch < epochs` must hold, but got epoch={epoch}, epochs={epochs}")
