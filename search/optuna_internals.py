"""All uses of Optuna's private interface, in one place.

`tests/search/test_optuna_internals.py` shows which of them has changed in another version of Optuna.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage


def storage_of(study: optuna.Study) -> BaseStorage:
    """The storage of a study."""
    return study._storage


def study_id(study: optuna.Study) -> int:
    """The study's id in its storage."""
    return study._study_id


def trial_id(trial: optuna.Trial | optuna.trial.FrozenTrial) -> int:
    """The trial's id in its storage, unique across studies."""
    return trial._trial_id


def trial_of(study: optuna.Study, frozen: optuna.trial.FrozenTrial | int) -> optuna.Trial:
    """A Trial to report to and tell, for an unfinished trial or its storage id."""
    from optuna.trial import Trial

    return Trial(study, frozen if isinstance(frozen, int) else frozen._trial_id)


def start_trial(study: optuna.Study, attributes: Mapping[str, Any], **drawn: Any) -> optuna.Trial:
    """A new RUNNING trial, created together with its user attributes (and `params`, `distributions`)."""
    from optuna.trial import TrialState, create_trial

    study._thread_local.cached_all_trials = None  # as study.ask() does
    begun = create_trial(state=TrialState.RUNNING, user_attrs=dict(attributes), **drawn)
    return trial_of(study, study._storage.create_new_trial(study._study_id, template_trial=begun))


def set_state(study: optuna.Study, trial: optuna.trial.FrozenTrial, state: optuna.trial.TrialState) -> None:
    """Sets the state of a trial that is not finished."""
    study._storage.set_trial_state_values(trial._trial_id, state=state)


def forget_drawn(trial: optuna.Trial) -> None:
    """Makes the trial draw its parameters again; stored values stay until then."""
    trial._cached_frozen_trial.params = {}
    trial._cached_frozen_trial.distributions = {}


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution contains this value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


class StudyView:
    """A study that shows a sampler only some of its trials; everything else is the study's."""

    def __init__(self, study: optuna.Study, shows: Callable[[optuna.trial.FrozenTrial], bool]) -> None:
        self._study, self._shows = study, shows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, *arguments: Any, **options: Any) -> list[optuna.trial.FrozenTrial]:
        """The method that Optuna's samplers call."""
        return [trial for trial in self._study._get_trials(*arguments, **options) if self._shows(trial)]

    @property
    def study(self) -> optuna.Study:
        """This view, typed as a study."""
        view: Any = self
        return view  # type: ignore[no-any-return]

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """The visible trials, by number."""
        return self._get_trials(deepcopy=False, use_cache=False)
