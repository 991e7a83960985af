"""Trials under way when a search ends badly wait in the storage: nobody takes them for running, and the next search goes on.

A driver that is killed outright leaves its trials RUNNING; one that ends by an exception or an interrupt leaves them WAITING. The
next driver takes up both. Trials that somebody queued by `study.enqueue_trial` wait as well, until a search asks for one; what
others added by `study.add_trial` is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.optuna_internals import set_state, start_trial
from search.ranking import ASKED, is_ours

if TYPE_CHECKING:
    import optuna


def ask(study: optuna.Study) -> optuna.Trial:
    """As `study.ask()`, for a trial that is marked as the search's own before anything else can happen to it."""
    from optuna.trial import TrialState

    if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        return study.ask()
    return start_trial(study, {ASKED: True})


def set_aside(study: optuna.Study) -> None:
    """Lets the search's running trials wait. For its driver, as the last thing it does."""
    from optuna.trial import TrialState

    for trial in filter(is_ours, study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))):
        set_state(study, trial, TrialState.WAITING)


def under_way(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that an earlier driver left, by number."""
    from optuna.trial import TrialState

    return list(filter(is_ours, study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))))


def take_up(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The same; all of them are running from now on."""
    from optuna.trial import TrialState

    left = under_way(study)
    for trial in left:
        if trial.state == TrialState.WAITING:
            set_state(study, trial, TrialState.RUNNING)
    return left
