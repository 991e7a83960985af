"""A trial on its way from being asked for to being told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.first_trials import FirstTrial
from search.population.objective import Progressed
from search.population.program import TrialState
from search.ranking import VAL_LOSS
from search.review.describe import short
from search.review.notes import Ended
from search.review.progress import Row
from search.trial import Objective, TrialConfig, TrialResult

if TYPE_CHECKING:
    import optuna


@dataclass
class Candidate:
    """A trial that is being trained."""

    trial: optuna.Trial
    config: TrialConfig
    first: FirstTrial | None = None
    """Its name among the first trials."""
    progressed: Progressed | None = None
    outcome: dict[str, Any] | None = None
    reported: int = 0
    """Epochs whose values are in the storage."""
    seconds: float = 0.0
    """Of its training, its share where trials train together."""

    @property
    def state(self) -> TrialState | None:
        """The state after the last rung."""
        return self.progressed.state if self.progressed else None

    def take(self, progressed: Progressed) -> None:
        """Notes what a task made of it."""
        self.progressed = progressed
        self.config = progressed.config or self.config
        self.seconds += progressed.result.seconds

    def reports(self, epochs: int, objective: Objective) -> list[tuple[int, float]]:
        """The epochs whose values are not in the storage yet, with these values.

        A probe has one value, that of its end. It stands at the last of the study's `epochs`, and is compared with the ends of
        others; at epoch 1 it would outrank every head that has trained for one epoch.
        """
        assert self.progressed is not None
        new = self.progressed.result.curves[self.reported :]
        return [(epochs if self.config.is_probe else each.epoch, getattr(each, objective)) for each in new]

    def ended(self) -> Ended:
        """What is told of it to those who read the study; after its outcome is known."""
        assert self.progressed is not None and self.outcome is not None
        return Ended(self.trial, self.config, self.progressed.result, self.outcome, self.seconds, self.first)

    def row(self, objective: Objective) -> Row:
        """How it stands, for the table of the search's progress."""
        outcome, number, words = self.outcome, self.trial.number, short(self.config)
        if outcome is None and self.progressed is not None:
            outcome = final_outcome(self.progressed.result, self.config.epochs, objective)
        if outcome is None:
            return Row(number, "RUNNING", None, words)
        here, val_loss = self.progressed is not None, outcome.get(VAL_LOSS, math.inf)
        return Row(number, outcome["state"], outcome.get("value"), words, here, val_loss)


def final_outcome(result: TrialResult, epochs: int, objective: Objective) -> dict[str, Any] | None:
    """The outcome of a trial that failed or has trained for its epochs; None of one that may go on."""
    if result.failure:
        return {"state": "FAIL", "reason": result.failure}
    if len(result.curves) < epochs:
        return None
    best = result.curves[result.best_epoch - 1]
    return {"state": "COMPLETE", "value": getattr(best, objective), VAL_LOSS: best.val_loss}
