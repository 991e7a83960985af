"""Unfinished trials of a search that was interrupted or failed: set to WAITING, and taken up by the next search.

A killed driver leaves its trials RUNNING; one that ends with an exception or an interrupt leaves them WAITING. The next driver
takes up both. Trials queued by `study.enqueue_trial` also wait, until a search asks for one; trials added by `study.add_trial`
are left as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.optuna_internals import set_state, start_trial
from search.ranking import ASKED, is_from_search

if TYPE_CHECKING:
    import optuna


def ask(study: optuna.Study) -> optuna.Trial:
    """Like `study.ask()`, but the trial is marked as the search's own from the moment it exists."""
    from optuna.trial import TrialState

    if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        return study.ask()
    return start_trial(study, {ASKED: True})


def set_aside(study: optuna.Study) -> None:
    """Sets the search's running trials to WAITING; the last thing a driver does."""
    from optuna.trial import TrialState

    for trial in filter(is_from_search, study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))):
        set_state(study, trial, TrialState.WAITING)


def under_way(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The unfinished trials of an earlier driver, by number."""
    from optuna.trial import TrialState

    return list(
        filter(is_from_search, study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)))
    )


def take_up(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials of `under_way`, all set to RUNNING."""
    from optuna.trial import TrialState

    left = under_way(study)
    for trial in left:
        if trial.state == TrialState.WAITING:
            set_state(study, trial, TrialState.RUNNING)
    return left
