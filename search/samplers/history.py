"""The history of a study as one ask may see it: the trials before the one that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from search.parameters import Question

if TYPE_CHECKING:
    import optuna


def mixed(question: Question) -> int:
    """The seed of one ask: 32 bits of the search's seed and the trial's number."""
    return int(np.random.SeedSequence([question.seed, question.number]).generate_state(1)[0])


def earlier(study: optuna.Study, number: int) -> Any:
    """The study with no trials but those before `number`."""
    return _Earlier(study, number)


class _Earlier:
    def __init__(self, study: optuna.Study, number: int) -> None:
        self._study, self._number = study, number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, *arguments: Any, **options: Any) -> list[optuna.trial.FrozenTrial]:
        trials = self._study._get_trials(*arguments, **options)
        return [trial for trial in trials if trial.number < self._number]
