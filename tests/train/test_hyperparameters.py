"""Hyperparameters for KerasTuner: every kind of distribution, loaded by KerasTuner itself."""

from __future__ import annotations

import json

import keras_tuner
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from train.exports.hyperparameters import keras_tuner_config, optuna_trial

CASES: list[tuple[BaseDistribution, object, str, object]] = [
    (IntDistribution(32, 512, step=32), 96, "Int", 96),
    (IntDistribution(1, 1000, log=True), 7, "Int", 7),
    (FloatDistribution(0.0, 0.6, step=0.1), 0.3, "Float", 0.3),
    (FloatDistribution(1e-5, 1e-2, log=True), 1e-3, "Float", 1e-3),
    (FloatDistribution(-1, 1), 0.5, "Float", 0.5),
    (IntDistribution(4, 4), 4, "Fixed", 4),
    (FloatDistribution(0.5, 0.5), 0.5, "Fixed", 0.5),
    (CategoricalDistribution(["relu", "gelu"]), "gelu", "Choice", "gelu"),
    (CategoricalDistribution([32, 64]), 64, "Choice", 64),
    (CategoricalDistribution([False, True]), True, "Boolean", True),
    (CategoricalDistribution([True]), True, "Fixed", True),
    (CategoricalDistribution([0, 0.1]), 0, "Choice", 0.0),
    (CategoricalDistribution([None, 4]), None, "Choice", "None"),
    (CategoricalDistribution(["mild", 4]), 4, "Choice", "4"),
]


@pytest.mark.parametrize(("distribution", "value", "kind", "expected"), CASES)
def test_a_parameter(distribution: BaseDistribution, value: object, kind: str, expected: object) -> None:
    trial = optuna.trial.create_trial(params={"x": value}, distributions={"x": distribution}, value=0.5)
    config = json.loads(json.dumps(keras_tuner_config(trial)))
    found = keras_tuner.HyperParameters.from_config(config)
    assert [type(one).__name__ for one in found.space] == [kind]
    assert found.get("x") == expected
    assert type(found.get("x")) is type(expected)
    stored = json.loads(json.dumps(optuna_trial(trial, "s")))
    assert stored["params"] == {"x": value}
    assert optuna.distributions.json_to_distribution(json.dumps(stored["distributions"]["x"])) == distribution
