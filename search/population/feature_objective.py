"""Base of the head and hypermodel objectives: trials that train on cached features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from features.cache.views import Views
from features.runtime.atomic import make_folder
from features.runtime.workers.executors import Executor, OnTaskFailure
from search.config import SearchRun
from search.engine import environment, lanes_of
from search.first_trials import FirstTrial, as_parameters, first_config
from search.parameters import Space
from search.population.sources import Caches
from search.population.task import Task, failed_results
from search.records import keep_weights, write_trial
from search.review.describe import Description, described
from search.trial import TrialConfig, TrialResult, TrialState

if TYPE_CHECKING:
    import optuna


class TrialSpace(Space, Protocol):
    """A space from which trials on features are drawn."""

    def suggest(self, trial: optuna.Trial, views: Views, epochs: int, seed: int) -> TrialConfig:
        """Draws a trial."""
        ...


class FeatureObjective(ABC):
    """Trials on the features of a run's caches; see `search.driver.objective.Objective`."""

    threads = True
    function = ""
    """The digest of the hypermodel function; empty for heads."""
    folder: Path | None = None
    """The folder in which that function's module may be."""

    def __init__(self, run: SearchRun, space: TrialSpace, caches: Caches) -> None:
        self.run, self.space, self.caches = run, space, caches
        self.metric = run.search.objective
        self.environment: Mapping[str, str] = environment(run)
        self.lanes = lanes_of(run)

    @abstractmethod
    def check(self) -> None:
        """Raises UsageError if trials of this objective cannot be trained."""

    def identity(self, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """The settings that the results of every search on features depend on."""
        shared = {"seed", "epochs", "objective", "generation", "sampler", "pruner", "lanes"}
        return {
            **self.run.search.model_dump(mode="json", include=shared),
            "views": (self.run.search.views or Views()).model_dump(mode="json"),
            "cache": self.caches.key,
        }

    def first(self, name: FirstTrial) -> tuple[TrialConfig, dict[str, Any]]:
        """The configuration of a first trial, except its seed, and its values for the space's parameters."""
        views = self.run.search.views or Views(policy=self.caches.augmented)
        config = first_config(name, views, self.run.search.epochs)
        config = config.model_copy(update={"views": self.caches.drawn(config.views)})
        return config, as_parameters(config, self.space.parameters())

    def suggest(self, trial: optuna.Trial) -> TrialConfig:
        """Draws a trial's configuration, except its seed."""
        return self.space.suggest(trial, self.caches.open_views, self.run.search.epochs, 0)

    def complete(self, config: TrialConfig) -> tuple[TrialConfig, dict[str, str]]:
        """The configuration with its views filled in, and the key of their cache as a trial attribute."""
        views = self.caches.drawn(config.views)
        return config.model_copy(update={"views": views}), {"cache": self.caches.of(views).key}

    def pieces(self, configs: Sequence[TrialConfig], until: int | None = None) -> list[list[int]]:
        """One configuration per task."""
        return [[place] for place in range(len(configs))]

    def task(
        self,
        configs: Sequence[TrialConfig],
        states: Sequence[TrialState | None] | None = None,
        until: int | None = None,
        seeds: Sequence[int] | None = None,
        train_share: float = 1.0,
    ) -> Task:
        """A task of configurations that end at the same epoch: from the start unless `states` are given, up to `until` or their
        last epoch. `seeds`, one per configuration, replace the search's seed; `train_share` of the training photos are used."""
        last = configs[0].epochs
        return Task(
            tuple(configs),
            (None,) * len(configs) if states is None else tuple(states),
            self.caches.sources,
            make_folder(self.run.workdir / ".jax").resolve(),
            last if until is None else min(until, last),
            self.metric,
            self.run.search.seed,
            self.lanes,
            None if seeds is None else tuple(seeds),
            train_share,
            self.folder,
        )

    def run_tasks(
        self,
        executor: Executor,
        tasks: Sequence[Task],
        on_task_failure: OnTaskFailure[Task, list[TrialResult]] | None = None,
    ) -> Iterator[tuple[int, list[TrialResult]]]:
        """Runs tasks on workers; yields (index of the task, results) in order of completion."""
        return executor.map(self.trainer, tasks, on_task_failure)

    @property
    @abstractmethod
    def trainer(self) -> Callable[[Task], list[TrialResult]]:
        """The function that trains a task on any worker; it must be picklable."""

    def train(
        self, executor: Executor, pieces: Sequence[Sequence[tuple[TrialConfig, TrialState | None]]], until: int
    ) -> Iterator[tuple[int, list[TrialResult]]]:
        """Trains each piece up to an epoch; see `Objective.train`."""
        tasks = [self.task([config for config, _ in piece], [state for _, state in piece], until) for piece in pieces]
        return self.run_tasks(executor, tasks, failed_results)

    def parse(self, text: str) -> TrialConfig:
        """The configuration in a trial's attribute `config`."""
        return TrialConfig.model_validate_json(text)

    def describe(self, config: TrialConfig) -> Description:
        """The parts that apply to the trial; see `search.review.describe.describe`."""
        return described(config, len(self.caches.own.class_names))

    def step_of(self, config: TrialConfig, epoch: int) -> int:
        """The epoch; for a probe, which has a single, final value, the study's last epoch: at epoch 1 it would outrank every head
        that has trained for one epoch."""
        return self.run.search.epochs if config.is_probe else epoch

    def write(self, number: int, config: TrialConfig, result: TrialResult) -> None:
        """Writes `trials/<number>`."""
        write_trial(self.run.workdir, number, config, result)

    def keep_weights(self, numbers: Sequence[int]) -> None:
        """Deletes the weights of all trials except these."""
        keep_weights(self.run.workdir, numbers)
