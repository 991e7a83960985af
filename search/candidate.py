"""A trial on its way from being asked for to being told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from search.first_trials import FirstTrial
from search.metric import Metric
from search.ranking import VAL_LOSS
from search.trial import TrialConfig, TrialResult, TrialState

if TYPE_CHECKING:
    import optuna


class Outcome(NamedTuple):
    """How a trial ended: a failed one with its reason, a complete one with its value and the validation loss of that epoch."""

    state: Literal["COMPLETE", "PRUNED", "FAIL"]
    value: float | None = None
    val_loss: float = math.inf
    reason: str | None = None

    @classmethod
    def of(cls, result: TrialResult, epochs: int, metric: Metric) -> Outcome | None:
        """Of a result that failed or has trained for its epochs; None for one that may go on."""
        if result.failure:
            return cls("FAIL", reason=result.failure)
        if len(result.curves) < epochs:
            return None
        best = result.curves[result.best_epoch - 1]
        return cls("COMPLETE", getattr(best, metric), best.val_loss)

    @classmethod
    def parse(cls, known: dict[str, Any]) -> Outcome:
        """From a trial's attribute `outcome`."""
        return cls(known["state"], known.get("value"), known.get(VAL_LOSS, math.inf), known.get("reason"))

    def plain(self) -> dict[str, Any]:
        """As a trial's attribute: without what it does not have."""
        if self.state == "COMPLETE":
            return {"state": self.state, "value": self.value, VAL_LOSS: self.val_loss}
        return {"state": self.state, **({"reason": self.reason} if self.reason else {})}


@dataclass
class Candidate:
    """A trial that is being trained."""

    trial: optuna.Trial
    config: TrialConfig
    first: FirstTrial | None = None
    """Its name among the first trials."""
    result: TrialResult | None = None
    """Up to the last rung; None of one that an earlier driver trained to its end."""
    outcome: Outcome | None = None
    reported: int = 0
    """Epochs whose values are in the storage."""
    seconds: float = 0.0
    """Of its training, its share where trials train together."""

    @property
    def number(self) -> int:
        """The trial's."""
        return self.trial.number

    @property
    def state(self) -> TrialState | None:
        """The state after the last rung."""
        return self.result.state if self.result else None

    @property
    def trained(self) -> TrialResult:
        """The result of a trial that has been trained in this process."""
        assert self.result is not None
        return self.result

    def take(self, result: TrialResult) -> None:
        """Notes what a task made of it."""
        self.result = result
        self.config = result.config or self.config
        self.seconds += result.seconds
