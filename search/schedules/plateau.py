"""Reduce on plateau: the rate falls when the validation loss stops improving, and may rise once in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from features.runtime.section import Section
from search.schedules.base import Rates, ScheduleConfig, Steps, check_epoch

MIN_IMPROVEMENT = 1e-4
"""How far a validation loss must be below the lowest so far to count as an improvement (Keras's min_delta)."""


class PlateauRule(Section):
    """Multiplies the learning rate by `factor` when the validation loss has not improved for `patience_epochs`.

    Precisely: an epoch is stale if its loss is not more than MIN_IMPROVEMENT below the lowest so far. `patience_epochs` stale
    epochs in a row are a plateau: the count restarts, and from the next epoch on the rate is multiplied by `factor`, down to
    `floor` (or to the first rate, if that is lower). This is Keras's ReduceLROnPlateau.

    With `rise_factor`, plateau number `rise_at_plateau` multiplies by it instead. The raised rate stays for `rise_epochs`,
    whatever the loss does; then it is multiplied by `factor`, the count restarts, and the decay continues from there. So while
    the loss stays above its lowest value before the rise, every `patience_epochs` epochs are another plateau.
    """

    factor: float = Field(0.5, gt=0, lt=1)
    patience_epochs: int = Field(5, ge=1)
    floor: float = Field(1e-6, ge=0, description="the lowest rate")
    rise_factor: float | None = Field(None, gt=1, le=1000, description="factor of a single rise; default: never rise")
    rise_epochs: int = Field(5, ge=1, description="how long the raised rate stays")
    rise_at_plateau: int = Field(1, ge=1, description="the plateau at which the rate rises; 1 is the first")

    def rate_after(self, first_rate: float, val_losses: Sequence[float]) -> float:
        """The rate of the epoch after epochs with these validation losses."""
        rate, floor = first_rate, min(self.floor, first_rate)
        lowest, stale, plateaus, risen_epochs = math.inf, 0, 0, 0
        for loss in val_losses:
            better = loss < lowest - MIN_IMPROVEMENT
            lowest, stale = (loss, 0) if better else (lowest, stale + 1)
            if risen_epochs:
                stale, risen_epochs = 0, risen_epochs - 1
                if not risen_epochs:
                    rate = max(floor, rate * self.factor)
            elif stale >= self.patience_epochs:
                stale, plateaus = 0, plateaus + 1
                if self.rise_factor is not None and plateaus == self.rise_at_plateau:
                    rate, risen_epochs = rate * self.rise_factor, self.rise_epochs
                else:
                    rate = max(floor, rate * self.factor)
        return rate


class Plateau(PlateauRule, ScheduleConfig):
    """From learning_rate down by `factor` at every plateau of the validation loss, with an optional brief rise; see PlateauRule.

    The rate is constant within an epoch, so that a Keras callback can set it. During the warm-up it is the value of a linear rise
    in the middle of the epoch: (epoch + 0.5) / warmup_epochs of the rate, epochs counted from 0. Losses of warm-up epochs do not
    count. With a rise, learning_rate is the first rate and not the highest.
    """

    follows_loss: ClassVar[bool] = True
    kind: Literal["plateau"] = "plateau"

    def values(self, steps_per_epoch: int, epochs: int) -> Rates:
        raise ValueError(
            "the rates of a plateau schedule follow the validation loss, so they are unknown in advance. Call rates_of_epoch "
            "with the losses so far, or read the recorded learning_rate."
        )

    def rates_of_epoch(self, epoch: int, steps_per_epoch: int, epochs: int, val_losses: Sequence[float] = ()) -> Rates:
        check_epoch(epoch, epochs)
        if len(val_losses) < epoch:
            raise ValueError(
                f"`len(val_losses) >= epoch` must hold for a plateau schedule, but got len(val_losses)={len(val_losses)}, "
                f"epoch={epoch}"
            )
        rate = self.rate_after(self.learning_rate, val_losses[math.ceil(self.warmup_epochs) : epoch])
        if epoch + 0.5 < self.warmup_epochs:
            rate *= (epoch + 0.5) / self.warmup_epochs
        return np.full(steps_per_epoch, rate, np.float32)

    def _shares(self, steps: Steps, steps_per_epoch: int, total: float) -> Steps:
        raise NotImplementedError("a plateau schedule has no shares in advance")
