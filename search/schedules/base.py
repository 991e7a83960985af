"""ScheduleConfig, the base of every schedule: settings in, learning rates out.

A schedule class only defines its rate at every step as a share of `learning_rate`. `values` and `rates_of_epoch` are the arrays
that a search trains with; `search.schedules.keras_form` provides the same numbers for Keras.
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
"""Steps counted from 0 after the warm-up; also shares of `learning_rate`, one per step."""


class ScheduleConfig(Section):
    """The base rate, which is also the highest, and the warm-up with which any schedule can start.

    Over the first `warmup_epochs` the rate rises linearly to the schedule's first rate: `(step + 1) / warm-up steps` of it, so it
    is never 0. Then the schedule runs over the remaining epochs. A training no longer than its warm-up only rises.
    """

    follows_loss: ClassVar[bool] = False
    """Whether the rates depend on the validation losses, and so are unknown before the training."""

    learning_rate: float = Field(1e-3, gt=0, le=10, description="the highest rate")
    warmup_epochs: float = Field(0, ge=0, description="epochs of linear rise before the schedule")

    def values(self, steps_per_epoch: int, epochs: int) -> Rates:
        """The learning rate of every step: (steps_per_epoch × epochs,) float32.

        ValueError if the rates follow the validation loss (`follows_loss`): use `rates_of_epoch` instead.
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
        (later ones are ignored; schedules planned in advance ignore all). ValueError for an epoch that is not part of the
        training, and for missing losses.
        """
        check_epoch(epoch, epochs)
        return self.values(steps_per_epoch, epochs)[epoch * steps_per_epoch : (epoch + 1) * steps_per_epoch]

    @abstractmethod
    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        """The rates at these steps as shares of `learning_rate`. Steps count from the end of the warm-up, after which `total`
        steps are left. Each share depends only on its own step."""


def check_epoch(epoch: int, epochs: int) -> None:
    """ValueError for an epoch (counted from 0) that is not part of the training."""
    if not 0 <= epoch < epochs:
        raise ValueError(f"`0 <= epoch < epochs` must hold, but got epoch={epoch}, epochs={epochs}")
