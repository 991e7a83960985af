"""Objective: what a study searches. The driver knows nothing of what is trained."""

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
    """A space, how its trials are trained on workers, and what of a result counts."""

    metric: Metric
    space: Space
    environment: Mapping[str, str]
    """Variables that workers need before their first import."""
    threads: bool
    """Whether a local executor may train several trials at a time in this process."""

    def check(self) -> None:
        """Raises UsageError for an objective whose trials cannot be trained; called before the first one is asked for."""
        ...

    def identity(self, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """What results depend on, besides the number of trials, as JSON; `known` is what a study was made with: where that is
        the same in the words of an earlier version, these words are used."""
        ...

    def first(self, name: FirstTrial) -> TrialConfig:
        """What a first trial is trained with, but for its seed."""
        ...

    def suggest(self, trial: optuna.Trial) -> TrialConfig:
        """Draws a trial, but for its seed."""
        ...

    def complete(self, config: TrialConfig) -> tuple[TrialConfig, dict[str, str]]:
        """The configuration with everything filled in that its training depends on, and attributes of the trial."""
        ...

    def pieces(self, configs: Sequence[TrialConfig], until: int | None = None) -> list[list[int]]:
        """What goes into each task: the places of configurations that are trained together, up to the same epoch (`until`, or
        their last)."""
        ...

    def train(
        self,
        executor: Executor,
        pieces: Sequence[Sequence[tuple[TrialConfig, TrialState | None]]],
        until: int,
    ) -> Iterator[tuple[int, list[TrialResult]]]:
        """Trains each piece from its states (None: from the start) up to an epoch. Gives (place of the piece, results) in order
        of completion; a task whose workers die again and again has failed results."""
        ...

    def step_of(self, config: TrialConfig, epoch: int) -> int:
        """The step of the study at which the value of this epoch stands."""
        ...

    def write(self, number: int, config: TrialConfig, result: TrialResult) -> None:
        """Domains the files of a trial that is over; its weights where the result has them."""
        ...

    def keep_weights(self, numbers: Sequence[int]) -> None:
        """Deletes the weights of all trials but these."""
        ...
