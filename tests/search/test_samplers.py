"""Asking: a function of the history, also when the driver was stopped while it asked."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from features.views import Views
from search.pruners import make_pruner
from search.samplers import SAMPLERS, ask_again, make_sampler
from search.space import SearchSpace

optuna.logging.set_verbosity(optuna.logging.WARNING)

SPACE = SearchSpace()


class Stopped(BaseException):
    """Stands for the end of a process: nothing catches it."""


class StoppingStorage(optuna.storages.InMemoryStorage):
    """Optuna's storage in memory, which refuses every write after `writes_left` more."""

    writes_left: int | None = None

    def _count(self) -> None:
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                raise Stopped

    def set_trial_param(self, *arguments: Any) -> None:
        self._count()
        super().set_trial_param(*arguments)

    def set_trial_system_attr(self, *arguments: Any) -> None:
        self._count()
        super().set_trial_system_attr(*arguments)

    def set_study_system_attr(self, *arguments: Any) -> None:
        self._count()
        super().set_study_system_attr(*arguments)


def study_of(told: int, sampler: str) -> tuple[StoppingStorage, optuna.Study]:
    storage = StoppingStorage()
    study = optuna.create_study(storage=storage, study_name="asked", pruner=make_pruner("hyperband", 27))
    for number in range(told):
        study.tell(ask(study, sampler), float(number * 7 % 11))
    return storage, study


def ask(study: optuna.Study, sampler: str, left: optuna.trial.FrozenTrial | None = None) -> optuna.Trial:
    number = len(study.trials) if left is None else left.number
    study.sampler = make_sampler(sampler, 0, number)
    trial = study.ask() if left is None else ask_again(study, left._trial_id)
    SPACE.suggest(trial, Views(), 27, 0)
    return trial


@pytest.mark.parametrize("told", [2, 13])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_ask_that_was_stopped_at_any_write_is_repeated_exactly(sampler: str, told: int) -> None:
    expected = ask(study_of(told, sampler)[1], sampler).params
    storage, study = study_of(told, sampler)
    writes = 0
    while True:
        storage.writes_left = writes
        try:
            ask(study, sampler)
            break
        except Stopped:
            storage.writes_left = None
        left = study.trials[-1]
        assert len(left.params) <= writes
        assert ask(study, sampler, left).params == expected
        assert study.trials[-1].params == expected
        storage, study = study_of(told, sampler)
        writes += 1
    assert writes >= len(expected)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trials_that_are_asked_for_together_differ(sampler: str) -> None:
    _, study = study_of(0, sampler)
    rates = [ask(study, sampler).params["schedule.learning_rate"] for _ in range(8)]
    assert len(set(rates)) == 8


def test_qmc_covers_a_range_evenly() -> None:
    """Places 0 to 15 of a scrambled Sobol sequence: one in each sixteenth of the range."""
    space = SearchSpace(
        head={"layers": 0, "dropout": {"low": 0.0, "high": 0.9}}, batch_size=32, schedule={"learning_rate": [0.1, 0.2]}
    )
    study = optuna.create_study()
    dropouts = []
    for number in range(17):
        study.sampler = make_sampler("qmc", 3, number)
        trial = study.ask()
        dropouts.append(space.suggest(trial, Views(), 1, 0).head.dropout)
    assert sorted(int(dropout / 0.9 * 16) for dropout in dropouts[1:]) == list(range(16))
