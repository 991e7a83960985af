"""Trials under way when a search ends badly wait in the storage: nobody takes them for running, and the next search goes on.

A driver that is killed outright leaves its trials RUNNING; one that ends by an exception or an interrupt leaves them WAITING. The
next driver takes up both. Trials that somebody queued by `study.enqueue_trial` wait as well, until a search asks for one; what
others added by `study.add_trial` is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.ranking import ASKED, is_ours

if TYPE_CHECKING:
    import optuna


def ask(study: optuna.Study) -> optuna.Trial:
    """As `study.ask()`, for a trial that is marked as the search's own before anything else can happen to it."""
    from optuna.trial import Trial, TrialState, create_trial

    if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        return study.ask()
    study._thread_local.cached_all_trials = None  # as study.ask()
    marked = create_trial(state=TrialState.RUNNING, user_attrs={ASKED: True})
    return Trial(study, study._storage.create_new_trial(study._study_id, template_trial=marked))


def set_aside(study: optuna.Study) -> None:
    """Lets the search's running trials wait. For its driver, as the last thing it does."""
    from optuna.trial import TrialState

    for trial in filter(is_ours, study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))):
        study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)


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
            study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING)
    return left
