"""Trials under way when a search ends badly wait in the storage: nobody takes them for running, and the next search goes on.

A driver that is killed outright leaves its trials RUNNING; one that ends by an exception or an interrupt leaves them WAITING. The
next driver takes up both. Trials that somebody queued by `study.enqueue_trial` wait as well; Optuna marks those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

ENQUEUED = "fixed_params"
"""Optuna's system attribute of a trial that somebody enqueued."""


def set_aside(study: optuna.Study) -> None:
    """Lets the study's running trials wait. For its driver, as the last thing it does."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study._storage.set_trial_state_values(trial._trial_id, state=TrialState.WAITING)


def under_way(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that an earlier driver left, by number."""
    from optuna.trial import TrialState

    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    return [trial for trial in left if ENQUEUED not in trial.system_attrs]


def take_up(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The same; all of them are running from now on."""
    from optuna.trial import TrialState

    left = under_way(study)
    for trial in left:
        if trial.state == TrialState.WAITING:
            study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING)
    return left
