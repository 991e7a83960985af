"""Pruner: the epochs (rungs) at which trials are judged, and the decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import optuna


class Judgement(NamedTuple):
    """Trial `number` judged after epoch `until`, by the objective's values up to that epoch, its own and its rivals'.

    `trials` are those of the study, by number. The best value is the highest (`sign` 1) or the lowest (`sign` -1).
    """

    trials: Sequence[optuna.trial.FrozenTrial]
    number: int
    until: int
    sign: int

    @property
    def trial(self) -> optuna.trial.FrozenTrial:
        """The judged trial."""
        return self.trials[self.number]

    @property
    def field(self) -> Sequence[optuna.trial.FrozenTrial]:
        """The trial and the earlier ones that have a value at epoch `until`. Later trials are left out, since whether they have
        one depends on when this is asked."""
        return [trial for trial in self.trials[: self.number + 1] if self.until in trial.intermediate_values]

    def at_rung(self, trial: optuna.trial.FrozenTrial) -> float:
        """A trial's value after epoch `until`; larger is better."""
        return self.sign * trial.intermediate_values[self.until]

    def so_far(self, trial: optuna.trial.FrozenTrial) -> float:
        """A trial's best value up to epoch `until`; larger is better."""
        return max(self.sign * value for epoch, value in trial.intermediate_values.items() if epoch <= self.until)


class Pruner(Protocol):
    """Decides at which rung a trial ends.

    A decision depends only on values up to its rung, of trials of its own and earlier generations. So it is the same with any
    number of workers, and when it is repeated after later values were reported."""

    def rungs(self) -> list[int]:
        """The epochs after which trials are judged, in order, without the last epoch."""
        ...

    def prunes(self, judgement: Judgement) -> bool:
        """Whether the trial ends at this rung."""
        ...
