"""What Headhunt uses of KerasTuner beyond its public interface is still there, and does what it did."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import keras_tuner
import pytest
from keras_tuner.src.engine.conditions import Parent
from keras_tuner.src.engine.hyperparameters import hp_types
from keras_tuner.src.engine.trial import Trial

CHANGED = (
    f"KerasTuner {importlib.metadata.version('keras-tuner')} has changed inside: fix search/samplers/oracles.py, and only there, "
    "or lower the upper bound of keras-tuner in pyproject.toml."
)


def space() -> keras_tuner.HyperParameters:
    hyperparameters = keras_tuner.HyperParameters()
    hyperparameters.merge([hp_types.Choice("units", [0, 1], conditions=[])])
    hyperparameters.merge([hp_types.Float("rate", 0.1, 1.0, sampling="log", conditions=[Parent("units", [1])])])
    hyperparameters.merge([hp_types.Int("layers", 0, 3, conditions=[])])
    return hyperparameters


def oracle(name: str, **settings: Any) -> Any:
    objective = keras_tuner.Objective("value", "max")
    return getattr(keras_tuner.oracles, name)(objective=objective, hyperparameters=space(), seed=1, **settings)


def test_a_space_takes_parameters_with_conditions() -> None:
    assert [one.name for one in space().space] == ["units", "rate", "layers"], CHANGED


@pytest.mark.parametrize("name", ["RandomSearchOracle", "BayesianOptimizationOracle"])
def test_an_oracle_counts_a_trial_that_is_put_into_it_as_tried(name: str) -> None:
    asked = oracle(name, max_trials=None)
    answer = asked.populate_space("0")
    assert answer["status"] == "RUNNING" and set(answer["values"]) >= {"units", "layers"}, CHANGED
    hyperparameters = space()
    hyperparameters.values = answer["values"]
    trial = Trial(hyperparameters=hyperparameters, trial_id="0", status="COMPLETED")
    trial.score = 0.5
    asked.trials["0"] = trial
    asked._tried_so_far.add(asked._compute_values_hash(hyperparameters.values))
    assert asked.populate_space("1")["values"] != answer["values"], CHANGED
    assert asked.ongoing_trials == {}, CHANGED


def test_the_bayesian_oracle_fits_its_process_to_what_its_vectors_are() -> None:
    asked = oracle("BayesianOptimizationOracle", max_trials=None)
    hyperparameters = space()
    hyperparameters.values = {"units": 0, "layers": 2}
    asked.trials["0"] = Trial(hyperparameters=hyperparameters, trial_id="0", status="COMPLETED")
    asked.trials["0"].score = 0.5
    points, scores = asked._vectorize_trials()
    assert points.shape == (1, 3) and scores.tolist() == [-0.5], CHANGED  # it minimises
    assert callable(asked.gpr.fit), CHANGED


def test_hyperband_keeps_its_brackets_where_they_are_read() -> None:
    asked = oracle("HyperbandOracle", max_epochs=9, factor=3, hyperband_iterations=None)
    asked.populate_space("0")
    (bracket,) = asked._brackets
    assert bracket["rounds"][0] == [{"past_id": None, "id": "0"}], CHANGED
    assert asked._get_epochs(bracket["bracket_num"], 0) == 1, CHANGED  # 9 / 3 ** 2
    asked._increment_bracket_num()
    asked._start_new_bracket()
    assert len(asked._brackets) == 2, CHANGED
