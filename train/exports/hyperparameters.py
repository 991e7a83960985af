"""The winner's hyperparameters for other tools: as an Optuna trial and as KerasTuner HyperParameters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from features.runtime.workers.engine import start_keras

if TYPE_CHECKING:
    import optuna


def optuna_trial(trial: optuna.trial.FrozenTrial, study: str) -> dict[str, Any]:
    """`params` for `Study.enqueue_trial`, and the `distributions` that they were drawn from.

    Each distribution, as JSON text, can be read by `optuna.distributions.json_to_distribution`.
    """
    from optuna.distributions import distribution_to_json

    return {
        "study": study,
        "trial": trial.number,
        "value": trial.value,
        "params": dict(trial.params),
        "distributions": {name: json.loads(distribution_to_json(one)) for name, one in trial.distributions.items()},
    }


def keras_tuner_config(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """The input of `keras_tuner.HyperParameters.from_config`: the ranges that the trial drew from, and the values it drew.

    Parameters that the trial does not have are omitted, so that no conditions are needed. KerasTuner requires choices of one
    type: mixed ints and floats become floats, and any other mixture, or None, becomes text.
    """
    start_keras("tensorflow")
    import keras_tuner

    found = keras_tuner.HyperParameters()
    for name, distribution in trial.distributions.items():
        found.values[name] = _declare(found, name, distribution, trial.params[name])
    config: dict[str, Any] = found.get_config()
    return config


def _declare(found: Any, name: str, distribution: Any, value: Any) -> Any:
    """Adds a parameter to KerasTuner's space; returns the value in KerasTuner's type."""
    choices = getattr(distribution, "choices", None)
    if choices is None:
        if distribution.low == distribution.high:
            found.Fixed(name, value)
        else:
            declare = found.Int if isinstance(value, int) else found.Float
            sampling = "log" if distribution.log else "linear"
            # On a logarithmic scale, Optuna's integers still have a step of 1, but KerasTuner's step is a factor.
            step = None if distribution.log else distribution.step
            declare(name, distribution.low, distribution.high, step=step, sampling=sampling)
        return value
    kinds = {type(choice) for choice in choices}
    if kinds == {bool}:
        found.Boolean(name) if len(choices) == 2 else found.Fixed(name, value)
        return value
    if kinds == {int, float}:
        as_type: Any = float
    else:
        as_type = (lambda choice: choice) if len(kinds) == 1 and type(None) not in kinds else str
    found.Choice(name, [as_type(choice) for choice in choices])
    return as_type(value)
