"""What Headhunt uses of Optuna beyond its public interface, all in one place.

`tests/search/test_optuna_internals.py` says which of these has changed in another version of Optuna.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage


def storage_of(study: optuna.Study) -> BaseStorage:
    """The storage that a study is in."""
    return study._storage


def study_id(study: optuna.Study) -> int:
    """The study's number in its storage."""
    return study._study_id


def trial_id(trial: optuna.Trial | optuna.trial.FrozenTrial) -> int:
    """The trial's number in its storage, among the trials of all studies."""
    return trial._trial_id


def trial_of(study: optuna.Study, frozen: optuna.trial.FrozenTrial | int) -> optuna.Trial:
    """A trial under way, of this storage number, to be reported to and told."""
    from optuna.trial import Trial

    return Trial(study, frozen if isinstance(frozen, int) else frozen._trial_id)


def start_trial(study: optuna.Study, attributes: Mapping[str, Any], **drawn: Any) -> optuna.Trial:
    """A new trial, RUNNING, that has user attributes (and `params`, `distributions`) from its first moment on."""
    from optuna.trial import TrialState, create_trial

    study._thread_local.cached_all_trials = None  # as study.ask()
    begun = create_trial(state=TrialState.RUNNING, user_attrs=dict(attributes), **drawn)
    return trial_of(study, study._storage.create_new_trial(study._study_id, template_trial=begun))


def set_state(study: optuna.Study, trial: optuna.trial.FrozenTrial, state: optuna.trial.TrialState) -> None:
    """Sets the state of a trial that is not finished."""
    study._storage.set_trial_state_values(trial._trial_id, state=state)


def forget_drawn(trial: optuna.Trial) -> None:
    """The trial draws its parameters again, as if it had drawn none; what is stored of them stays until then."""
    trial._cached_frozen_trial.params = {}
    trial._cached_frozen_trial.distributions = {}


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution has this value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


class StudyView:
    """A study as a sampler sees it, with some of its trials only; everything else is the study's."""

    def __init__(self, study: optuna.Study, shows: Callable[[optuna.trial.FrozenTrial], bool]) -> None:
        self._study, self._shows = study, shows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, *arguments: Any, **options: Any) -> list[optuna.trial.FrozenTrial]:
        """What Optuna's samplers call."""
        return [trial for trial in self._study._get_trials(*arguments, **options) if self._shows(trial)]

    @property
    def study(self) -> optuna.Study:
        """This view, in the place of a study."""
        view: Any = self
        return view  # type: ignore[no-any-return]

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that are seen, by number."""
        return self._get_trials(deepcopy=False, use_cache=False)
