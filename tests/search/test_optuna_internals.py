"""The private parts of Optuna that Headhunt uses still exist and behave as before."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from search.optuna_internals import (
    StudyView,
    forget_drawn,
    holds,
    set_state,
    start_trial,
    storage_of,
    study_id,
    trial_id,
    trial_of,
)

pytestmark = pytest.mark.unit

CHANGED = (
    f"Optuna {optuna.__version__} has changed inside: mend search/optuna_internals.py, and only there, or lower the upper bound "
    "of optuna in pyproject.toml."
)


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="inside", direction="maximize")


def test_numbers_in_the_storage_are_those_that_the_storage_gives(study: optuna.Study) -> None:
    storage = storage_of(study)
    assert storage.get_study_id_from_name("inside") == study_id(study), CHANGED
    trial = study.ask()
    assert storage.get_trial(trial_id(trial)).number == trial.number, CHANGED


def test_a_started_trial_is_running_with_its_attributes_and_can_be_told(study: optuna.Study) -> None:
    study.get_trials(deepcopy=False)  # a cached copy of the trials must not hide the new one
    distributions = {"x": FloatDistribution(0, 1)}
    trial = start_trial(study, {"mine": True}, params={"x": 0.5}, distributions=distributions)
    (found,) = study.get_trials()
    assert (found.state, found.user_attrs, found.params) == (TrialState.RUNNING, {"mine": True}, {"x": 0.5}), CHANGED
    again = trial_of(study, found)
    again.report(0.25, 1)
    study.tell(again, 0.75)
    assert study.trials[0].value == 0.75 and study.trials[0].intermediate_values == {1: 0.25}, CHANGED
    assert trial.number == again.number == 0


def test_a_running_trial_can_wait_and_go_on(study: optuna.Study) -> None:
    study.ask()
    for state in (TrialState.WAITING, TrialState.RUNNING):
        set_state(study, study.trials[0], state)
        assert study.trials[0].state == state, CHANGED


def test_a_trial_forgets_what_it_drew_and_draws_again(study: optuna.Study) -> None:
    study.sampler = optuna.samplers.RandomSampler(seed=1)
    drawn = study.ask().suggest_float("x", 0, 1)
    study.sampler = optuna.samplers.RandomSampler(seed=2)
    kept = trial_of(study, study.trials[0])
    assert kept.suggest_float("x", 0, 1) == drawn
    again = trial_of(study, study.trials[0])
    forget_drawn(again)
    study.sampler = optuna.samplers.RandomSampler(seed=3)
    assert again.suggest_float("x", 0, 1) != drawn, CHANGED


@pytest.mark.parametrize(("value", "wanted"), [(0.5, True), (1.5, False), ("a", False)])
def test_whether_a_range_holds_a_value(value: object, wanted: bool) -> None:
    assert holds(FloatDistribution(0, 1), value) is wanted, CHANGED
    assert holds(CategoricalDistribution(["a", 0.5]), value) is (value in ("a", 0.5)), CHANGED


def test_a_sampler_that_is_given_a_view_sees_no_other_trials(study: optuna.Study) -> None:
    """TPE models only what it sees: with the good half hidden, it draws near the bad half."""
    for place in range(40):
        x = place / 40
        trial = start_trial(study, {}, params={"x": x}, distributions={"x": FloatDistribution(0, 1)})
        study.tell(trial, x)
    view = StudyView(study, lambda trial: trial.params.get("x", 1.0) < 0.5)
    assert [trial.number for trial in view.trials()] == list(range(20)), CHANGED
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True)
    space = {"x": FloatDistribution(0, 1)}
    study.ask()
    running = study.trials[-1]
    seen = [sampler.sample_relative(view.study, running, space)["x"] for _ in range(10)]
    every = [sampler.sample_relative(study, running, space)["x"] for _ in range(10)]
    assert max(seen) < min(every), CHANGED
