"""The contract of every sampler: an ask is a function of the history, even if the driver was stopped during an ask."""

from __future__ import annotations

import copy
import importlib.util
import random
import warnings
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from features.cache.views import Views
from features.run_file import load
from features.runtime.errors import UsageError
from search.config import SearchConfig, SearchRun
from search.samplers.choice import SAMPLERS, exhausted, make_sampler, redraw
from search.samplers.oracles import allotment, hyperband_trials
from search.space import SearchSpace

optuna.logging.set_verbosity(optuna.logging.WARNING)

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="gp needs the extra `gp`")
MARKS = {"gp": [needs_torch]}
NAMES = [pytest.param(name, marks=MARKS.get(name, ())) for name in SAMPLERS]
COSTLY = ("gp", "keras_tuner.bayesian")
"""Samplers whose model takes about a second per ask, once there is something to model."""

MODELLING = [
    pytest.param(name, marks=[*MARKS.get(name, []), *([pytest.mark.slow] if name in COSTLY else [])])
    for name in ("tpe", "cmaes", *COSTLY)
]
STOPPED = [
    pytest.param(name, told, marks=[*MARKS.get(name, []), *([pytest.mark.slow] if name in COSTLY and told else [])])
    for name in SAMPLERS
    for told in (0, 5)
]

SPACE = SearchSpace(
    head={"layers": [0, 1, 2], "units": [8, 16]},
    batch_size=[16, 32],
    schedule={"learning_rate": {"low": 0.01, "high": 1.0, "step": 0.01}},
)
"""Conditions, choices and a range; finite, so that a grid can search it too."""

EPOCHS = 27


class Stopped(BaseException):
    """Simulates the end of a process: nothing catches it."""


class StoppingStorage(optuna.storages.InMemoryStorage):
    """Optuna's in-memory storage, which refuses every write after `writes_left` more."""

    writes_left: int | None = None

    def _count(self) -> None:
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                raise Stopped

    def set_trial_param(self, *arguments: Any) -> None:
        self._count()
        super().set_trial_param(*arguments)

    def set_trial_user_attr(self, *arguments: Any) -> None:
        self._count()
        super().set_trial_user_attr(*arguments)

    def set_trial_system_attr(self, *arguments: Any) -> None:
        self._count()
        super().set_trial_system_attr(*arguments)

    def set_study_system_attr(self, *arguments: Any) -> None:
        self._count()
        super().set_study_system_attr(*arguments)


def new_study(storage: Any = None) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="asked", pruner=optuna.pruners.NopPruner())


def ask(
    study: optuna.Study,
    sampler: str,
    left: optuna.trial.FrozenTrial | None = None,
    seed: int = 0,
    space: SearchSpace = SPACE,
) -> optuna.Trial:
    number = len(study.trials) if left is None else left.number
    study.sampler = make_sampler(sampler, space, seed, number, EPOCHS)
    if left is None:
        assert exhausted(study.sampler, study) is None
    trial = study.ask() if left is None else redraw(study, left._trial_id)
    space.suggest(trial, Views(), EPOCHS, 0)
    return trial


def tell(study: optuna.Study, number: int) -> None:
    """One trial in eight fails and one is pruned; the others have a value that follows from their parameters."""
    trial = study.trials[number]
    cost = (trial.params["schedule.learning_rate"] - 0.3) ** 2 + 0.1 * trial.params["head.layers"]
    if number % 8 == 3:
        study.tell(number, state=TrialState.FAIL)
    elif number % 8 == 4:
        study._storage.set_trial_intermediate_value(trial._trial_id, 1, cost)
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, cost)


def search(study: optuna.Study, sampler: str, generations: int, size: int = 4, **options: Any) -> list[dict[str, Any]]:
    """Asks for generations of trials, each told in full before the next; returns all their parameters."""
    for _ in range(generations):
        for number in [ask(study, sampler, **options).number for _ in range(size)]:
            tell(study, number)
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize(("sampler", "generations"), STOPPED)
def test_an_ask_that_was_stopped_at_any_write_is_repeated_exactly(sampler: str, generations: int) -> None:
    """Within a generation: two of its trials are running, and the third is being asked for."""
    before = new_study(StoppingStorage())
    search(before, sampler, generations)
    ask(before, sampler)
    ask(before, sampler)
    undisturbed = copy.deepcopy(before)
    expected = (ask(undisturbed, sampler).params, undisturbed.trials[-1].user_attrs)
    # Costly models are tested with only a few stops.
    stride = 3 if sampler in COSTLY and generations else 1
    for writes in range(0, 100, stride):
        study = copy.deepcopy(before)
        storage = study._storage
        assert isinstance(storage, StoppingStorage)
        storage.writes_left = writes
        try:
            ask(study, sampler)
            break
        except Stopped:
            storage.writes_left = None
        assert len(study.trials[-1].params) <= writes
        assert ask(study, sampler, study.trials[-1]).params == expected[0]
        assert (study.trials[-1].params, study.trials[-1].user_attrs) == expected
        resumed = study
    assert writes >= len(expected[0])
    assert ask(resumed, sampler).params == ask(undisturbed, sampler).params


@pytest.mark.parametrize("sampler", NAMES)
def test_a_study_goes_on_from_its_storage_alone(sampler: str, tmp_path: Path) -> None:
    """Every ask reads the storage again, and other users of random numbers in the process do not matter."""
    expected = search(new_study(), sampler, 4)
    file = str(tmp_path / "study.journal")

    def storage() -> optuna.storages.JournalStorage:
        return optuna.storages.JournalStorage(JournalFileBackend(file))

    new_study(storage())
    for generation in range(4):
        asked = []
        for _ in range(4):
            np.random.seed(generation)
            random.seed(generation)
            asked.append(ask(optuna.load_study(study_name="asked", storage=storage()), sampler).number)
        for number in asked:
            tell(optuna.load_study(study_name="asked", storage=storage()), number)
    assert [trial.params for trial in optuna.load_study(study_name="asked", storage=storage()).trials] == expected


@pytest.mark.parametrize("sampler", NAMES)
def test_another_seed_gives_other_trials(sampler: str) -> None:
    assert search(new_study(), sampler, 2) != search(new_study(), sampler, 2, seed=1)


@pytest.mark.parametrize("sampler", NAMES)
def test_a_trial_has_the_parameters_whose_conditions_hold(sampler: str) -> None:
    drawn = search(new_study(), sampler, 4)
    for params in drawn:
        assert list(params) == [one.name for one in SPACE.parameters() if one.exists(params)]
        for parameter in SPACE.parameters():
            assert parameter.name not in params or parameter.distribution()._contains(
                parameter.distribution().to_internal_repr(params[parameter.name])
            )
    assert {params["head.layers"] for params in drawn} == {0, 1, 2}


@pytest.mark.parametrize("sampler", NAMES)
def test_trials_that_are_asked_for_together_differ(sampler: str) -> None:
    study = new_study()
    drawn = [ask(study, sampler).params for _ in range(8)]
    assert len({str(params) for params in drawn}) == 8


@pytest.mark.parametrize("sampler", MODELLING)
def test_a_sampler_with_a_model_learns_from_the_history(sampler: str) -> None:
    space = SearchSpace(
        head={"dropout": {"low": 0.0, "high": 0.9}}, batch_size=32, schedule={"learning_rate": {"low": 0.01, "high": 1}}
    )
    study = new_study()
    costs = []
    for _ in range(6):
        for trial in [ask(study, sampler, space=space) for _ in range(6)]:
            cost = abs(trial.params["head.dropout"] - 0.6) + abs(trial.params["schedule.learning_rate"] - 0.3)
            costs.append(cost)
            study.tell(trial, cost)
    near = sum(cost < 0.2 for cost in costs[12:])
    assert near >= 6, "of 24; a random search has 2 of them there"


def test_qmc_covers_a_range_evenly() -> None:
    """Places 0 to 15 of a scrambled Sobol sequence: one in each sixteenth of the range."""
    space = SearchSpace(
        head={"layers": 0, "dropout": {"low": 0.0, "high": 0.9}}, batch_size=32, schedule={"learning_rate": [0.1, 0.2]}
    )
    study = new_study()
    dropouts = [ask(study, "qmc", seed=3, space=space).params["head.dropout"] for _ in range(17)]
    assert sorted(int(dropout / 0.9 * 16) for dropout in dropouts[1:]) == list(range(16))


def test_the_grid_has_every_configuration_once_and_then_ends() -> None:
    space = SearchSpace(
        head={"layers": {"low": 0, "high": 2}, "units": [8, 16], "units_2": [4, 8, 12], "dropout": [0.0, 0.5]},
        optimizer={"kind": ["adam", "sgd"], "momentum": {"low": 0.0, "high": 0.9, "step": 0.3}},
        batch_size=32,
        schedule={"learning_rate": 0.01},
    )
    study = new_study()
    size = (1 + 2 + 2 * 3) * 2 * (1 + 4)
    assert space.size() == size
    drawn = [str(ask(study, "grid", space=space).params) for _ in range(size)]
    assert len(set(drawn)) == size
    assert all(f"'head.layers': {layers}" in str(drawn[:20]) for layers in (0, 1, 2))
    over = make_sampler("grid", space, 0, size)
    assert exhausted(over, study) == f"the grid is exhausted: all of its {size} configurations have been tried"


def test_a_large_grid_costs_no_memory() -> None:
    space = SearchSpace(
        head={"layers": [0, 1, 2, 3], "units": {"low": 1, "high": 1024}}, schedule={"learning_rate": [0.1, 0.2]}
    )
    study = new_study()
    assert len({str(ask(study, "grid", space=space).params) for _ in range(20)}) == 20
    assert space.size() == (1 + 1024 + 1024**2 + 1024**3) * 2


@pytest.mark.parametrize("sampler", ["keras_tuner.random", "keras_tuner.bayesian", "keras_tuner.hyperband"])
def test_an_oracle_that_has_tried_everything_ends_the_study(sampler: str) -> None:
    space = SearchSpace(head={"layers": [0, 1], "units": 8}, batch_size=[16, 32], schedule={"learning_rate": 0.1})
    study = new_study()
    drawn = [str(ask(study, sampler, space=space).params) for _ in range(4)]
    assert len(set(drawn)) == 4
    reason = exhausted(make_sampler(sampler, space, 0, 4, EPOCHS), study)
    assert reason == "KerasTuner's oracle found no untried configuration in 20 attempts"


def test_hyperband_allots_what_kerastuner_allots(tmp_path: Path) -> None:
    """Compared with KerasTuner's own oracle, driven with the same scores for 150 trials in generations of 8."""
    import keras_tuner

    def score(number: int) -> float:
        return float(number * 37 % 101)

    theirs = keras_tuner.oracles.HyperbandOracle(
        objective=keras_tuner.Objective("value", "min"), max_epochs=EPOCHS, factor=3, hyperband_iterations=None, seed=1
    )
    theirs.hyperparameters.Float("rate", 0.0, 1.0)
    theirs._set_project_dir(str(tmp_path), "oracle")
    theirs.verbose = 0
    study = new_study()
    for start in range(0, 152, 8):
        for number in range(start, start + 8):
            ask(study, "keras_tuner.hyperband")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # KerasTuner's threading.currentThread
                values = theirs.create_trial(str(number)).hyperparameters.values
            given = allotment(study.trials[number])
            assert given is not None
            past = values.get("tuner/trial_id")
            assert (given.epochs, given.round, given.continues) == (
                values["tuner/epochs"],
                values["tuner/round"],
                None if past is None else int(past),
            )
            if given.continues is not None:
                assert study.trials[number].params == study.trials[given.continues].params
                assert study.trials[number].params == study.trials[given.origin].params
        for number in range(start, start + 8):
            study.tell(number, score(number))
            trial = theirs.trials[next(name for name in theirs.trials if int(name) == number)]
            trial.score, trial.status = score(number), "COMPLETED"
            theirs.ongoing_trials.pop(str(number))


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 10, 27, 30])
def test_the_length_of_hyperbands_brackets(epochs: int) -> None:
    """One trial after the other, until the first trial of the second round of all brackets."""
    study = new_study()
    for number in range(hyperband_trials(epochs) + 1):
        study.sampler = make_sampler("keras_tuner.hyperband", SPACE, 0, number, epochs)
        trial = study.ask()
        SPACE.suggest(trial, Views(), epochs, 0)
        study.tell(trial, float(number))
    brackets = [given.bracket for given in map(allotment, study.trials) if given]
    rounds = 1 + max(n for n in range(6) if epochs >= 3**n)
    assert brackets == sorted(brackets)
    assert max(brackets[:-1]) == rounds - 1
    assert brackets[-1] == rounds


def test_the_configuration_knows_every_sampler() -> None:
    assert set(get_args(SearchConfig.model_fields["sampler"].annotation)) == set(SAMPLERS)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "{sampler: keras_tuner.hyperbnad}",
            "search.sampler: received 'keras_tuner.hyperbnad'; allowed: 'tpe', 'gp', ",
        ),
        ("{sampler: keras_tuner.hyperbnad}", "Did you mean 'keras_tuner.hyperband'?"),
        (
            "{sampler: keras_tuner.hyperband, pruner: median}",
            "search.pruner: received 'median', but the sampler keras_tuner.hyperband stops trials itself. Set pruner: none",
        ),
        (
            "{sampler: grid, space: {head: {l2: {low: 1.0e-6, high: 1.0e-3, log: true}}}}",
            "search: space.head.l2 is a continuous range (1e-06 to 0.001), which the sampler grid cannot exhaust. Write the "
            "values to try, e.g. [1e-06, 1e-05, 0.0001, 0.001]; or choose another sampler",
        ),
        (
            "{sampler: grid, space: {head: {dropout: {low: 0, high: 0.6}}}}",
            "or give it a step: {low: 0, high: 0.6, step: ...}",
        ),
        (
            "{sampler: cmaes, space: {head: {units: {low: 8, high: 64}}, schedule: {}}}",
            "search: the sampler cmaes needs a range that every trial draws, and the space has none.",
        ),
    ],
)
def test_what_a_sampler_cannot_do_is_refused_when_the_file_is_read(tmp_path: Path, section: str, message: str) -> None:
    file = tmp_path / "headhunt.yaml"
    file.write_text(f"dataset: {{kind: toy_cars}}\nsearch: {section}\n")
    with pytest.raises(UsageError) as caught:
        load(SearchRun, file)
    assert message in str(caught.value)


def test_kerastuners_hyperband_needs_no_pruner(tmp_path: Path) -> None:
    assert SearchConfig(sampler="keras_tuner.hyperband").pruner == "none"
    assert SearchConfig().pruner == "quarters"


def test_gp_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs PyTorch, which is not installed. Run `pip install 'headhunt\[gp\]'`"):
        make_sampler("gp", SPACE, 0, 0)
