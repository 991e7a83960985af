"""Pruner: the epochs (rungs) at which trials are judged, and the judgement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import optuna


class Judgement(NamedTuple):
    """Trial `number` is judged after the epoch `until`, by the values of the objective up to there, its own and its rivals'.

    `trials` are those of the study, by number. The best value is the highest (`sign` 1) or the lowest (`sign` -1).
    """

    trials: Sequence[optuna.trial.FrozenTrial]
    number: int
    until: int
    sign: int

    @property
    def trial(self) -> optuna.trial.FrozenTrial:
        """The trial that is judged."""
        return self.trials[self.number]

    @property
    def field(self) -> Sequence[optuna.trial.FrozenTrial]:
        """The trial and those before it that have a value after the epoch `until`. Whether later trials have one depends on when
        it is asked."""
        return [trial for trial in self.trials[: self.number + 1] if self.until in trial.intermediate_values]

    def at_rung(self, trial: optuna.trial.FrozenTrial) -> float:
        """A trial's value after the epoch `until`; the larger the better."""
        return self.sign * trial.intermediate_values[self.until]

    def so_far(self, trial: optuna.trial.FrozenTrial) -> float:
        """A trial's best value up to the epoch `until`; the larger the better."""
        return max(self.sign * value for epoch, value in trial.intermediate_values.items() if epoch <= self.until)


class Pruner(Protocol):
    """A judgement depends on values up to its rung of trials up to its own, and on complete trials of earlier generations. So it
    is the same with any number of workers, and when it is asked for again after later values were reported."""

    def rungs(self) -> list[int]:
        """The epochs after which trials are judged, in order; the end of the training is not among them."""
        ...

    def prunes(self, judgement: Judgement) -> bool:
        """Whether the trial ends at this rung."""
        ...
