"""Schedules for Keras: a LearningRateSchedule for planned rates, a callback for rates that follow the loss.

A LearningRateSchedule is used wherever possible: on JAX, the compiled step does not see rates that a callback sets between the
batches of an epoch, only those set before an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter

from search.schedules.base import ScheduleConfig
from search.schedules.kinds import Schedule


def keras_rate(schedule: ScheduleConfig, steps_per_epoch: int, epochs: int) -> Any:
    """The `learning_rate` argument for a Keras optimiser.

    For planned rates, a LearningRateSchedule that returns `schedule.values` and is saved and loaded with the compiled model;
    after the last epoch the last rate stays. For rates that follow the loss, the first rate, a float; `keras_callbacks` set the
    others.
    """
    if schedule.follows_loss:
        return float(schedule.rates_of_epoch(0, steps_per_epoch, epochs)[0])
    return planned_rates()(schedule, steps_per_epoch, epochs)


def keras_callbacks(
    schedule: ScheduleConfig, steps_per_epoch: int, epochs: int, val_losses: Sequence[float] = ()
) -> list[Any]:
    """The callbacks that Keras's `fit` needs besides `keras_rate`: none for planned rates.

    For rates that follow the loss, one callback that sets the rate before each epoch from the validation losses of `fit`;
    `val_losses` are those of the epochs before, if this `fit` resumes a training (`initial_epoch`).
    """
    return [_rate_of_each_epoch(schedule, steps_per_epoch, epochs, val_losses)] if schedule.follows_loss else []


@lru_cache(maxsize=1)
def planned_rates() -> Any:
    """The Keras class of planned rates, registered under its name: `PlannedRates(schedule, steps_per_epoch, epochs)`.

    A process must call this before it loads a compiled model. The rates are looked up in a (steps_per_epoch × epochs,) float32
    table, so they are bit for bit those of `values` on every backend.
    """
    import keras

    @keras.saving.register_keras_serializable("headhunt")
    class PlannedRates(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
        """The rate of every optimiser step; after the last one it stays."""

        def __init__(self, schedule: ScheduleConfig, steps_per_epoch: int, epochs: int) -> None:
            self.schedule, self.steps_per_epoch, self.epochs = schedule, steps_per_epoch, epochs
            self._values = schedule.values(steps_per_epoch, epochs)

        def __call__(self, step: Any) -> Any:
            last = len(self._values) - 1
            return keras.ops.take(keras.ops.convert_to_tensor(self._values), keras.ops.minimum(step, last))

        def get_config(self) -> dict[str, Any]:
            return {
                "schedule": self.schedule.model_dump(mode="json"),
                "steps_per_epoch": self.steps_per_epoch,
                "epochs": self.epochs,
            }

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> PlannedRates:
            schedule: ScheduleConfig = TypeAdapter(Schedule).validate_python(config["schedule"])
            return cls(schedule, config["steps_per_epoch"], config["epochs"])

    return PlannedRates


def _rate_of_each_epoch(
    schedule: ScheduleConfig, steps_per_epoch: int, epochs: int, val_losses: Sequence[float]
) -> Any:
    """A Keras callback that sets the rate before every epoch: the first of `rates_of_epoch`."""
    import keras

    class RateOfEachEpoch(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.val_losses = list(val_losses)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            rates = schedule.rates_of_epoch(epoch, steps_per_epoch, epochs, self.val_losses)
            self.model.optimizer.learning_rate = rates[0]

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if logs and "val_loss" in logs:
                self.val_losses.append(float(logs["val_loss"]))

    return RateOfEachEpoch()
