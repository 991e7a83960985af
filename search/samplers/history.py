"""The history of a study as one ask may see it: the trials before the one that is asked for, as far as they say something of
the space.

A first trial, which was not drawn, may lack parameters that every drawn one has (a linear probe has no schedule). Samplers model
parameters together: such a trial would make TPE model them apart for the rest of the study, and take one of the few places among
the best trials without having a value there. So samplers see a first trial only if it has every parameter that a drawn one has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from search.parameters import AskContext, Parameter

if TYPE_CHECKING:
    import optuna


def mixed(context: AskContext) -> int:
    """The seed of one ask: 32 bits of the search's seed and the trial's number."""
    return int(np.random.SeedSequence([context.seed, context.number]).generate_state(1)[0])


def earlier(study: optuna.Study, context: AskContext) -> Any:
    """The study with no trials but those before the one asked for, without first trials that lack a parameter."""
    return _Seen(study, context, context.number)


def comparable(study: optuna.Study, context: AskContext) -> Any:
    """The study without first trials that lack a parameter."""
    return _Seen(study, context, None)


def is_whole(trial: optuna.trial.FrozenTrial, parameters: Sequence[Parameter]) -> bool:
    """Whether a trial has every parameter that a drawn one would have."""
    return all(parameter.name in trial.params for parameter in parameters if parameter.exists(trial.params))


class _Seen:
    def __init__(self, study: optuna.Study, context: AskContext, before: int | None) -> None:
        self._study, self._context, self._before = study, context, before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, *arguments: Any, **options: Any) -> list[optuna.trial.FrozenTrial]:
        trials = self._study._get_trials(*arguments, **options)
        return [
            trial
            for trial in trials
            if (self._before is None or trial.number < self._before)
            and (trial.number >= self._context.first or is_whole(trial, self._context.parameters))
        ]
