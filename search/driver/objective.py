"""Objective: what a study searches. The driver knows nothing about what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from features.runtime.workers.executors import Executor
from search.first_trials import FirstTrial
from search.metric import Metric
from search.parameters import Space
from search.trial import TrialConfig, TrialResult, TrialState

if TYPE_CHECKING:
    import optuna


class Objective(Protocol):
    """A space, how its trials are trained on workers, and which metric counts."""

    metric: Metric
    space: Space
    environment: Mapping[str, str]
    """Environment variables that workers need before their first import."""
    threads: bool
    """Whether a local executor may train several trials at once in threads of this process."""

    def check(self) -> None:
        """Raises UsageError if trials of this objective cannot be trained; called before the first ask."""
        ...

    def identity(self, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """The settings that results depend on, except the number of trials, as JSON. `known` is the identity stored with the
        study: where it says the same in an earlier version's terms, those terms are kept."""
        ...

    def first(self, name: FirstTrial) -> TrialConfig:
        """The configuration of a first trial, except its seed."""
        ...

    def suggest(self, trial: optuna.Trial) -> TrialConfig:
        """Draws a trial's configuration, except its seed."""
        ...

    def complete(self, config: TrialConfig) -> tuple[TrialConfig, dict[str, str]]:
        """The configuration with everything that training depends on filled in, and attributes to store with the trial."""
        ...

    def pieces(self, configs: Sequence[TrialConfig], until: int | None = None) -> list[list[int]]:
        """Splits configurations into tasks: the indices of those that are trained together, up to the same epoch (`until` or
        their last)."""
        ...

    def train(
        self,
        executor: Executor,
        pieces: Sequence[Sequence[tuple[TrialConfig, TrialState | None]]],
        until: int,
    ) -> Iterator[tuple[int, list[TrialResult]]]:
        """Trains each piece from its states (None: from the start) up to an epoch. Yields (index of the piece, results) in order
        of completion; a task whose workers die repeatedly yields failed results."""
        ...

    def step_of(self, config: TrialConfig, epoch: int) -> int:
        """The Optuna step at which the value of this epoch is reported."""
        ...

    def write(self, number: int, config: TrialConfig, result: TrialResult) -> None:
        """Writes the files of a finished trial, including its weights if the result has them."""
        ...

    def keep_weights(self, numbers: Sequence[int]) -> None:
        """Deletes the weights of all trials except these."""
        ...
