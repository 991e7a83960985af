"""A trial between ask and tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, cast

from search.first_trials import FirstTrial
from search.metric import Metric
from search.ranking import VAL_LOSS
from search.trial import Configuration, TrialResult, TrialState

if TYPE_CHECKING:
    import optuna


C = TypeVar("C", bound=Configuration)


class Outcome(NamedTuple):
    """How a trial ended: the reason if it failed; its value and validation loss at the best epoch if it completed."""

    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    value: float | None = None
    val_loss: float = math.inf
    reason: str | None = None

    @classmethod
    def of(cls, result: TrialResult, epochs: int, metric: Metric) -> Outcome | None:
        """The outcome of a result that failed or has trained for all its epochs; None if the trial can continue."""
        if result.failure:
            return cls("FAIL", reason=result.failure)
        if len(result.curves) < epochs:
            return None
        best = result.curves[result.best_epoch - 1]
        return cls("COMPLETE", getattr(best, metric), best.val_loss)

    @classmethod
    def parse(cls, known: dict[str, Any]) -> Outcome:
        """From a trial's `outcome` attribute."""
        return cls(known["state"], known.get("value"), known.get(VAL_LOSS, math.inf), known.get("reason"))

    def plain(self) -> dict[str, Any]:
        """As a trial's `outcome` attribute; omits fields that do not apply."""
        if self.state == "COMPLETE":
            return {"state": self.state, "value": self.value, VAL_LOSS: self.val_loss}
        return {"state": self.state, **({"reason": self.reason} if self.reason else {})}


@dataclass
class Candidate(Generic[C]):
    """A trial that is being trained."""

    trial: optuna.Trial
    config: C
    first: FirstTrial | None = None
    """The name of a first trial; None if the trial is drawn."""
    result: TrialResult | None = None
    """Up to the last rung; None before the first rung, and for a trial that an earlier driver finished training."""
    outcome: Outcome | None = None
    reported: int = 0
    """Number of epochs whose values are in the storage."""
    seconds: float = 0.0
    """Training time; the trial's share where several train together."""

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.trial.number

    @property
    def state(self) -> TrialState | None:
        """The training state after the last rung."""
        return self.result.state if self.result else None

    @property
    def trained(self) -> TrialResult:
        """The result of a trial that was trained in this process."""
        assert self.result is not None
        return self.result

    def take(self, result: TrialResult) -> None:
        """Stores the result of a task."""
        self.result = result
        self.config = cast(C, result.config or self.config)
        self.seconds += result.seconds
