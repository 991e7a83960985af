"""A phase's optimiser: Keras's own, plus rates by depth and decoupled weight decay if the phase has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search.schedules.keras_form import keras_rate
from train.config import PhaseConfig


def build_optimizer(phase: PhaseConfig, factors: Mapping[str, float], steps_per_epoch: int, weights: list[Any]) -> Any:
    """The Keras optimiser of a phase, built for these trained weights.

    Each weight is trained with the schedule's rate times its factor (by path, see rate_factors), and each step subtracts
    rate × factor × decay × weight, like a trial's optimiser.
    """
    plain = phase.optimizer.build()
    rate = keras_rate(phase.followed, steps_per_epoch, phase.epochs)
    shares, decay = [factors[weight.path] for weight in weights], phase.optimizer.decay
    kind = type(plain)
    if decay or any(share != 1 for share in shares):
        kind = _with_factors(kind, shares, decay)
    optimizer = kind.from_config({**plain.get_config(), "learning_rate": rate})
    optimizer.build(weights)
    return optimizer


def _with_factors(kind: Any, shares: list[float], decay: float) -> Any:
    """A subclass of an optimiser that scales the rate of every weight, by its index among the trained weights."""

    class Scaled(kind):  # type: ignore[misc]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            rate = learning_rate * shares[self._get_variable_index(variable)]
            if decay:
                self.assign_sub(variable, variable * (rate * decay))
            super().update_step(gradient, variable, rate)

    return Scaled
