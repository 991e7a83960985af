"""The part of a study's history that an ask may see: the earlier trials that are informative about the space.

A first trial, which was not drawn, may lack parameters that every drawn trial has (a linear probe has no schedule). Samplers
model parameters jointly: such a trial would make TPE model them separately for the rest of the study, and occupy one of the few
places among the best trials without having a value there. So samplers ignore first trials that lack such a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from search.optuna_internals import StudyView
from search.parameters import AskContext, Parameter

if TYPE_CHECKING:
    import optuna


def mixed(context: AskContext) -> int:
    """The seed of one ask: 32 bits of the search's seed and the trial's number."""
    return int(np.random.SeedSequence([context.seed, context.number]).generate_state(1)[0])


def earlier(study: optuna.Study, context: AskContext) -> StudyView:
    """The study with only the trials before the one asked for, without first trials that lack a parameter."""
    return StudyView(study, lambda trial: trial.number < context.number and _is_comparable(trial, context))


def comparable(study: optuna.Study, context: AskContext) -> StudyView:
    """The study without first trials that lack a parameter."""
    return StudyView(study, lambda trial: _is_comparable(trial, context))


def is_whole(trial: optuna.trial.FrozenTrial, parameters: Sequence[Parameter]) -> bool:
    """Whether a trial has every parameter that a drawn one would have."""
    return all(parameter.name in trial.params for parameter in parameters if parameter.exists(trial.params))


def _is_comparable(trial: optuna.trial.FrozenTrial, context: AskContext) -> bool:
    return trial.number >= context.first or is_whole(trial, context.parameters)
