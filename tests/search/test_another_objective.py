"""The driver searches whatever has a space, a training and a metric: here a polynomial, without features, heads or Keras."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest

from features.runtime.errors import UsageError
from features.runtime.section import Section
from features.runtime.workers.executors import Executor
from search.config import SearchConfig
from search.driver.driver import Driver
from search.driver.identity import check_identity
from search.driver.objective import Objective
from search.driver.ownership import owned
from search.driver.stopping import End
from search.driver.storage import open_storage
from search.metric import Metric
from search.parameters import Parameter, Range
from search.review.describe import Description
from search.trial import EpochMetrics, TrialResult, TrialState

pytestmark = pytest.mark.unit

SEARCH = SearchConfig.model_validate(
    {"trials": 9, "epochs": 6, "generation": 4, "pruner": "median", "keep": 2, "workers": {"executor": "local"}}
)


class Recipe(Section):
    """What a trial of this objective is."""

    rate: float
    epochs: int = 6
    seed: int = 0


class Rates:
    """A space of one parameter."""

    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("rate", Range(low=0.0, high=1.0)),)

    def size(self) -> float:
        return float("inf")


@dataclass
class Polynomial:
    """The value after epoch t is 1 - (rate - 0.3)² / t; the best rate is 0.3."""

    folder: Path
    metric: Metric = "val_accuracy"
    space: Rates = field(default_factory=Rates)
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: bool = False
    name: str = "polynomial"
    dies_in: int | None = None
    """Ends this process's work like a kill when so many trials were trained."""

    def check(self) -> None:
        pass

    def identity(self, known: Mapping[str, Any] | None) -> dict[str, Any]:
        return {"of": self.name}

    def first(self, name: str) -> tuple[Recipe, dict[str, Any]]:
        raise AssertionError(name)

    def suggest(self, trial: optuna.Trial) -> Recipe:
        return Recipe(rate=trial.suggest_float("rate", 0.0, 1.0))

    def complete(self, config: Recipe) -> tuple[Recipe, dict[str, str]]:
        return config, {"origin": "here"}

    def pieces(self, configs: Sequence[Recipe], until: int | None = None) -> list[list[int]]:
        return [[place] for place in range(len(configs))]

    def train(
        self, executor: Executor, pieces: Sequence[Sequence[tuple[Recipe, TrialState | None]]], until: int
    ) -> Iterator[tuple[int, list[TrialResult]]]:
        for place, ((config, _),) in enumerate(pieces):
            if self.dies_in is not None:
                self.dies_in -= 1
                if self.dies_in < 0:
                    raise KeyboardInterrupt
            errors = [(config.rate - 0.3) ** 2 / epoch for epoch in range(1, min(until, config.epochs) + 1)]
            curves = tuple(
                EpochMetrics(epoch, error, 1 - error, error, 1 - error, 1.0, config.rate)
                for epoch, error in enumerate(errors, start=1)
            )
            yield place, [TrialResult(curves, len(curves), {}, None, 0.01)]

    def parse(self, text: str) -> Recipe:
        return Recipe.model_validate_json(text)

    def describe(self, config: Recipe) -> Description:
        words = {"recipe": f"rate {config.rate:.3f}"}
        return Description(words, [*words.values()], words)

    def step_of(self, config: Recipe, epoch: int) -> int:
        return epoch

    def write(self, number: int, config: Recipe, result: TrialResult) -> None:
        (self.folder / f"{number}.json").write_text(config.model_dump_json())

    def keep_weights(self, numbers: Sequence[int]) -> None:
        (self.folder / "kept.json").write_text(json.dumps(list(numbers)))


def drive(folder: Path, objective: Objective[Recipe]) -> End:
    study = optuna.create_study(
        storage=open_storage("sqlite", folder), study_name="x", direction="maximize", load_if_exists=True
    )
    with owned(study, lambda: open_storage("sqlite", folder), "x") as ownership:
        check_identity(study, objective)
        return Driver(folder, SEARCH, study, objective, ownership).drive()


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="x", storage=open_storage("sqlite", folder)).trials


def test_it_asks_prunes_tells_and_keeps_the_best(tmp_path: Path) -> None:
    drive(tmp_path, Polynomial(tmp_path))
    found = trials(tmp_path)
    complete = [trial for trial in found if trial.state.name == "COMPLETE"]
    assert len(found) == 9 and {trial.state.name for trial in found} == {"COMPLETE", "PRUNED"}
    for trial in complete:
        assert trial.value == pytest.approx(1 - (trial.params["rate"] - 0.3) ** 2 / 6)
        assert Recipe.model_validate_json(trial.user_attrs["config"]).rate == trial.params["rate"]
        assert trial.user_attrs["recipe"] == f"rate {trial.params['rate']:.3f}"
    best = sorted(complete, key=lambda trial: abs(trial.params["rate"] - 0.3))
    assert json.loads((tmp_path / "kept.json").read_text()) == [trial.number for trial in best[:2]]
    assert len(list(tmp_path.glob("[0-9].json"))) == 9


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study that nothing stopped."""
    folder = tmp_path_factory.mktemp("calm")
    drive(folder, Polynomial(folder))
    return trials(folder)


@pytest.mark.parametrize("trained", [0, 3, 6, 9])
def test_it_resumes_as_if_it_had_not_been_stopped(
    tmp_path: Path, calm: list[optuna.trial.FrozenTrial], trained: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path, Polynomial(tmp_path, dies_in=trained))
    drive(tmp_path, Polynomial(tmp_path))
    stopped = trials(tmp_path)
    assert [trial.state for trial in stopped] == [trial.state for trial in calm]
    assert [trial.params for trial in stopped] == [trial.params for trial in calm]
    assert [trial.intermediate_values for trial in stopped] == [trial.intermediate_values for trial in calm]


def test_settings_bind_from_the_first_trial_on(tmp_path: Path) -> None:
    """A first start that was refused before its first trial leaves the study open to a mended configuration."""
    study = optuna.create_study(storage=open_storage("sqlite", tmp_path), study_name="x", direction="maximize")
    check_identity(study, Polynomial(tmp_path, name="refused"))
    check_identity(study, Polynomial(tmp_path))
    drive(tmp_path, Polynomial(tmp_path))
    with pytest.raises(UsageError, match=r'was started with other settings: of \(was "polynomial", is "another"\)'):
        check_identity(study, Polynomial(tmp_path, name="another"))
