"""First trials in the eyes of a sampler: which of their values a space has, and that every sampler goes on after them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import optuna
import pytest

from features.cache.views import Views
from search.first_trials import FirstTrial, as_parameters, first_config, fixed_sampler
from search.parameters import AskContext
from search.samplers.choice import SAMPLERS, exhausted, make_sampler
from search.samplers.grid import Grid
from search.samplers.history import comparable
from search.space import SearchSpace
from search.trial import TrialConfig
from tests.search.test_first_trials import NAMES

SPACE = SearchSpace(
    head={"layers": [0, 1], "units": [64, 256], "dropout": {"low": 0.0, "high": 0.6, "step": 0.1}, "batch_norm": [False, True]},
    batch_size=[32, 64],
    schedule={"kind": ["constant", "warmup_cosine"], "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}},
    views={"clean_share": {"low": 0.0, "high": 1.0}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("probe", {"head.layers": 0, "head.dropout": 0.0, "head.batch_norm": False, "views.clean_share": 1.0}),
        (
            "known_good",
            {
                "head.layers": 1,
                "head.units_1": 256,
                "head.dropout": 0.4,
                "head.batch_norm": True,
                "batch_size": 64,
                "schedule.kind": "warmup_cosine",
                "schedule.learning_rate": 3e-3,
                "views.clean_share": 1.0,
            },
        ),
        (
            "notebook",  # its learning rate is below the range
            {
                "head.layers": 1,
                "head.units_1": 256,
                "head.dropout": 0.5,
                "head.batch_norm": False,
                "batch_size": 32,
                "schedule.kind": "constant",
                "views.clean_share": 0.0,
            },
        ),
    ],
)
def test_what_a_space_can_express_is_recorded(name: FirstTrial, wanted: dict[str, Any]) -> None:
    config = first_config(name, Views(policy="p", copies=2), 5)
    found = as_parameters(config, SPACE.parameters())
    assert found == wanted
    study = optuna.create_study(sampler=fixed_sampler(found, SPACE.parameters()))
    trial = study.ask()
    for parameter in SPACE.parameters():
        if parameter.name in found:
            parameter.draw(trial)
    assert trial.params == wanted
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config


def test_the_default_space_expresses_the_known_good_head() -> None:
    """The notebooks' rate is below the range and its schedule not among the choices: samplers do not see that trial."""
    parameters = SearchSpace(views={"clean_share": [0.0, 0.5, 1.0]}).parameters()
    found = as_parameters(first_config("known_good", Views(copies=2), 30), parameters)
    assert [*found] == [one.name for one in parameters if one.exists(found)]
    notebook = as_parameters(first_config("notebook", Views(copies=2), 30), parameters)
    assert {one.name for one in parameters} - {*notebook} == {"schedule.kind", "schedule.learning_rate"}


def first_trials(study: optuna.Study, space: SearchSpace) -> Iterator[optuna.Trial]:
    """Asks for the first trials in turn, with those of their values that the space has."""
    for name in NAMES:
        found = as_parameters(first_config(name, Views(), 9), space.parameters())
        study.sampler = fixed_sampler(found, space.parameters())
        trial = study.ask()
        for parameter in space.parameters():
            if parameter.name in found:
                parameter.draw(trial)
        yield trial


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "gp"])
def test_every_sampler_goes_on_after_them(sampler: str) -> None:
    """First trials with all parameters and with few; then enough trials for every sampler's model."""
    space = SearchSpace(
        head={"layers": [0, 1], "units": [64, 256]},
        batch_size=[32, 64],
        schedule={"learning_rate": {"low": 0.0005, "high": 0.0105, "step": 0.0005}},
    )
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    for trial in first_trials(study, space):
        study.tell(trial, 0.5)
    for number in range(3, 20):
        study.sampler = make_sampler(sampler, space, 0, number, 9, first=3)
        if exhausted(study.sampler, study):
            break
        trial = study.ask()
        config = space.suggest(trial, Views(), 9, 0)
        study.tell(trial, 0.1 * config.head.layers + config.schedule.learning_rate)
    assert len(study.trials) == 20
    drawn = study.trials[3:]
    assert all(
        [*trial.params] == [one.name for one in space.parameters() if one.exists(trial.params)] for trial in drawn
    )
    if sampler == "qmc":  # a Sobol sequence over a drawn trial's parameters, from the second drawn trial on
        assert len({trial.params["schedule.learning_rate"] for trial in drawn[1:9]}) == 8


def test_a_grid_visits_every_point_beside_them() -> None:
    space = SearchSpace(
        head={"layers": [0, 1], "units": [64, 256]}, batch_size=[32, 64], schedule={"learning_rate": 1e-3}
    )
    size = Grid(space.parameters()).size
    study = optuna.create_study()
    for number in range(3, 3 + size):
        study.sampler = make_sampler("grid", space, 0, number, first=3)
        assert exhausted(study.sampler, study) is None
        space.suggest(study.ask(), Views(), 5, 0)
    assert len({str(trial.params) for trial in study.trials}) == size == 6
    assert "exhausted" in (exhausted(make_sampler("grid", space, 0, 3 + size, first=3), study) or "")


def test_samplers_see_a_first_trial_that_has_every_parameter() -> None:
    study = optuna.create_study()
    wide = SearchSpace(
        head={"layers": [0, 1], "units": [256]}, schedule={"learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}
    )
    assert [trial.number for trial in first_trials(study, wide)] == [0, 1, 2]
    seen = comparable(study, AskContext(wide.parameters(), 0, 3, 9, first=3)).trials()
    assert [trial.number for trial in seen] == [1]  # the probe has no schedule; the notebooks' rate is not in the range
