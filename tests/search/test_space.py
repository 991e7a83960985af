"""The search space: what it draws, how large it is, and what it refuses."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest

from features.cache.views import Views
from features.run_file import load
from features.runtime.errors import UsageError
from search.config import SearchRun
from search.samplers.choice import make_sampler
from search.schedules import SCHEDULES
from search.space import SearchSpace, fixed_space
from search.trial import TrialConfig

optuna.logging.set_verbosity(optuna.logging.WARNING)


def draw(space: SearchSpace, count: int, sampler: str = "random") -> list[tuple[dict[str, Any], TrialConfig]]:
    study = optuna.create_study()
    drawn = []
    for number in range(count):
        study.sampler = make_sampler(sampler, space, 0, number)
        trial = study.ask()
        config = space.suggest(trial, Views(clean_share=0.5), 7, number)
        drawn.append((dict(trial.params), config))
        study.tell(trial, float(number % 5))
    return drawn


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_parameters_exist_only_where_the_structure_has_them(sampler: str) -> None:
    space = SearchSpace(
        head={"layers": [0, 1, 2, 3], "units": {"low": 8, "high": 32, "step": 8}, "dropout": 0.1},
        optimizer={
            "kind": ["adam", "adamw", "sgd"],
            "weight_decay": {"low": 1e-4, "high": 1e-1, "log": True},
            "momentum": [0.0, 0.9],
        },
        schedule={"kind": ["constant", "step_decay"], "learning_rate": [1e-3, 1e-2], "factor": [0.1, 0.5]},
    )
    seen = set()
    for params, config in draw(space, 40, sampler):
        layers = params["head.layers"]
        assert [name for name in params if name.startswith("head.units")] == [
            f"head.units_{n + 1}" for n in range(layers)
        ]
        assert config.head.units == tuple(params[f"head.units_{n + 1}"] for n in range(layers))
        assert set(config.head.units) <= {8, 16, 24, 32}
        assert ("optimizer.weight_decay" in params) == (config.optimizer.kind == "adamw")
        assert ("optimizer.momentum" in params) == (config.optimizer.kind == "sgd")
        assert ("schedule.factor" in params) == (config.schedule.kind == "step_decay")
        assert "head.dropout" not in params
        assert (config.head.dropout, config.epochs, config.views.clean_share) == (0.1, 7, 0.5)
        seen.add((layers, config.optimizer.kind, config.schedule.kind))
    assert len(seen) > 5


def test_every_schedule_is_searched_with_the_parameters_that_it_has() -> None:
    schedule: dict[str, Any] = {
        "kind": list(SCHEDULES),
        "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
        "warmup_epochs": [0, 1.5],
        "floor": [0.0, 1e-7],
        "factor": [0.1, 0.5],
        "every_epochs": {"low": 1, "high": 9},
        "power": {"low": 0.5, "high": 2},
        "floor_share": [0.0, 0.1],
        "half_cycle_epochs": {"low": 1, "high": 5},
        "gamma": {"low": 0.999, "high": 1.0},
        "first_period_epochs": [2, 5],
        "multiplier": [1, 2],
        "rise_share": {"low": 0.1, "high": 0.5},
        "start_share": [0.04, 0.1],
        "patience_epochs": {"low": 1, "high": 3},
        "rise_factor": [None, 3.0],
        "rise_epochs": [1, 2],
        "rise_at_plateau": [1, 2],
    }
    space = SearchSpace(head={"layers": 0}, batch_size=32, schedule=schedule)
    kinds = set()
    for params, config in draw(space, 80):
        wanted = {f"schedule.{name}" for name in type(config.schedule).model_fields}
        assert {name for name in params if name.startswith("schedule.")} == wanted
        kinds.add(config.schedule.kind)
    assert kinds == set(SCHEDULES)
    assert {name for kind in SCHEDULES.values() for name in kind.model_fields} == set(schedule)


def test_an_ask_is_a_function_of_the_history() -> None:
    space = SearchSpace()
    assert draw(space, 12, "tpe") == draw(space, 12, "tpe")


def test_views_may_be_searched_over() -> None:
    shares = {config.views.clean_share for _, config in draw(SearchSpace(views={"clean_share": [0.0, 1.0]}), 20)}
    assert shares == {0.0, 1.0}


@pytest.mark.parametrize(
    ("space", "size"),
    [
        ({"head": {"layers": 0}, "batch_size": 32, "schedule": {}}, 1),
        ({"head": {"layers": [0, 1, 2], "units": [8, 16]}, "batch_size": 32, "schedule": {}}, 1 + 2 + 4),
        ({"head": {"layers": [0, 1], "units": [8, 16]}, "batch_size": [16, 32], "schedule": {}}, (1 + 2) * 2),
        ({"head": {}, "batch_size": 32, "schedule": {"kind": ["constant", "step_decay"], "factor": [0.1, 0.5]}}, 1 + 2),
        (
            {
                "head": {},
                "batch_size": 32,
                "schedule": {
                    "kind": ["constant", "one_cycle", "plateau"],
                    "warmup_epochs": [0, 1],
                    "patience_epochs": {"low": 1, "high": 3},
                    "rise_factor": [None, 3.0],
                },
            },
            2 + 2 + 2 * 3 * 2,
        ),
        ({"head": {"dropout": {"low": 0.0, "high": 0.6, "step": 0.1}}, "batch_size": 32, "schedule": {}}, 7),
        ({"head": {"dropout": {"low": 0.0, "high": 0.6}}, "batch_size": 32, "schedule": {}}, float("inf")),
    ],
)
def test_size(space: dict[str, Any], size: float) -> None:
    assert SearchSpace(**space).size() == size


def test_a_fixed_space_draws_its_trial() -> None:
    with warnings.catch_warnings():
        for _, config in draw(
            SearchSpace(head={"layers": [0, 2, 3], "units": [8, 16, 32], "l2": {"low": 1e-5, "high": 1e-2}}), 10
        ):
            space = SearchSpace.model_validate(fixed_space(config).model_dump(mode="json"))
            assert space.size() == 1
            ((params, again),) = draw(space, 1)
            assert params == {}
            assert (
                again.model_copy(update={"seed": config.seed, "views": config.views, "epochs": config.epochs}) == config
            )


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_fixed_space_has_the_schedule_of_its_trial(kind: str) -> None:
    config = TrialConfig.model_validate({"schedule": {"kind": kind, "learning_rate": 0.02, "warmup_epochs": 1.5}})
    ((params, again),) = draw(SearchSpace.model_validate(fixed_space(config).model_dump(mode="json")), 1)
    assert params == {}
    assert again.schedule == config.schedule


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("head: {layers: 4}", "search.space.head.layers: received 4; it must be 0 to 3."),
        ("head: {units: [0]}", "head.units: received 0; it must be an integer of at least 1"),
        ("head: {droput: 0.1}", "head.droput: unknown key; allowed: units, activation, dropout"),
        ("head: {dropout: {low: 0.5, high: 0.1}}", "head.dropout: `low <= high` must hold, but got low=0.5, high=0.1"),
        ("head: {dropout: {low: 0.0, high: 1.0}}", "head.dropout: received 1.0; input should be less than 1"),
        ("head: {dropout: {low: 0.0, hihg: 1.0}}", "head.dropout."),
        (
            "head: {activation: [relu, rleu]}",
            "head.activation: received 'rleu'; input should be 'relu', 'gelu', 'silu' or 'tanh'",
        ),
        ("head: {l2: {low: 0, high: 1, log: true}}", "head.l2: `low > 0` must hold for log: true, but got low=0"),
        ("head: {dropout: []}", "head.dropout: the list of choices is empty"),
        ("head: {dropout: [0.1, 0.1]}", "head.dropout: a choice is listed twice"),
        ("schedule: {kind: cosin}", "schedule.kind: received 'cosin'; allowed: constant, step_decay"),
        (
            "schedule: {kind: plateau, rise_factor: [null, 1]}",
            "rise_factor: received 1; input should be greater than 1",
        ),
        ("schedule: {kind: [cosine, plateau], gamma: 1}", "unknown for the kinds cosine, plateau; allowed: factor"),
        ("schedule: {kind: constant, factor: 0.5}", "schedule.factor: unknown for the kinds constant"),
        ("optimizer: {kind: adm}", "optimizer.kind: received 'adm'; allowed: adam, adamw, sgd, rmsprop"),
        ("batch_size: 0", "batch_size: received 0; input should be greater than or equal to 1"),
        ("views: {clean_share: 2}", "views.clean_share: received 2; input should be less than or equal to 1"),
    ],
)
def test_a_wrong_space_is_refused_when_it_is_read(tmp_path: Path, space: str, message: str) -> None:
    file = tmp_path / "headhunt.yaml"
    file.write_text("dataset: {kind: toy_cars}\nsearch: {space: {" + space + "}}\n")
    with pytest.raises(UsageError) as caught:
        load(SearchRun, file)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("adamw", 1e-3, 3e-2), ("rmsprop", 1e-3, 3e-2), ("sgd", 3e-2, 1), (["adam", "sgd"], 1e-3, 1)],
)
def test_the_default_rates_are_those_of_the_optimisers(kind: Any, low: float, high: float) -> None:
    space = SearchSpace.model_validate({"optimizer": {"kind": kind}})
    assert space.schedule["learning_rate"] == {"low": low, "high": high, "log": True}
    own = SearchSpace.model_validate(
        {"optimizer": {"kind": kind}, "schedule": {"kind": "cosine", "learning_rate": 1e-2}}
    )
    assert own.schedule["learning_rate"] == 1e-2


def test_an_optimiser_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "headhunt.yaml"
    file.write_text("dataset: {kind: toy_cars}\nsearch: {space: {optimizer: 3}}\n")
    with pytest.raises(UsageError) as caught:
        load(SearchRun, file)
    assert len(str(caught.value).splitlines()) == 2 and "search.space.optimizer: received 3" in str(caught.value)


def test_parts_in_another_order_are_no_other_choice() -> None:
    with pytest.raises(
        ValueError, match=r"features.parts: avg\+max and max\+avg are the same parts. Remove one of them"
    ):
        SearchSpace(features={"parts": ["avg", "avg+max", "max+avg"]})
    with pytest.raises(ValueError, match=r"gem:3\+avg and avg \+ gem:3\.0 are the same parts"):
        SearchSpace(features={"parts": [None, "gem:3+avg", "avg + gem:3.0"]})
