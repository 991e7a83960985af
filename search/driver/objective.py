"""Objective: what a study searches. The driver knows nothing about what is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from features.runtime.workers.executors import Executor
from search.candidate import C
from search.first_trials import FirstTrial
from search.metric import Metric
from search.parameters import Space
from search.review.describe import Description
from search.trial import TrialResult, TrialState

if TYPE_CHECKING:
    import optuna


class Objective(Protocol[C]):
    """A space, how its trials are trained on workers, and which metric counts; C is what a trial is trained with."""

    metric: Metric

    @property
    def space(self) -> Space:
        """What samplers draw from."""
        ...

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

    def first(self, name: FirstTrial) -> tuple[C, dict[str, Any]]:
        """The configuration of a first trial, except its seed, and its values for the space's parameters."""
        ...

    def suggest(self, trial: optuna.Trial) -> C:
        """Draws a trial's configuration, except its seed."""
        ...

    def complete(self, config: C) -> tuple[C, dict[str, str]]:
        """The configuration with everything that training depends on filled in, and attributes to store with the trial."""
        ...

    def pieces(self, configs: Sequence[C], until: int | None = None) -> list[list[int]]:
        """Splits configurations into tasks: the indices of those that are trained together, up to the same epoch (`until` or
        their last)."""
        ...

    def train(
        self,
        executor: Executor,
        pieces: Sequence[Sequence[tuple[C, TrialState | None]]],
        until: int,
    ) -> Iterator[tuple[int, list[TrialResult]]]:
        """Trains each piece from its states (None: from the start) up to an epoch. Yields (index of the piece, results) in order
        of completion; a task whose workers die repeatedly yields failed results."""
        ...

    def parse(self, text: str) -> C:
        """The configuration that was stored as JSON with a trial."""
        ...

    def describe(self, config: C) -> Description:
        """The configuration in words, for the terminal and the dashboard."""
        ...

    def step_of(self, config: C, epoch: int) -> int:
        """The Optuna step at which the value of this epoch is reported."""
        ...

    def write(self, number: int, config: C, result: TrialResult) -> None:
        """Writes the files of a finished trial, including its weights if the result has them."""
        ...

    def keep_weights(self, numbers: Sequence[int]) -> None:
        """Deletes the weights of all trials except these."""
        ...
