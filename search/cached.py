"""A storage for readers that stay. Importing this imports Optuna."""

from __future__ import annotations

from collections.abc import Container

from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState


class CachedStorage(_CachedStorage):
    """Optuna's cache of a database, which reads trials that are over once, and which can let go of them again."""

    def let_go(self, study_id: int) -> None:
        """Drops what is kept of a study, some 10 KB a trial; it is read again when it is asked for."""
        with self._lock:
            kept = self._studies.pop(study_id, None)
            for number in kept.trials if kept else ():
                trial_id = self._study_id_and_number_to_trial_id.pop((study_id, number))
                del self._trial_id_to_study_id_and_number[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials of a study; KeyError when there is no such study."""
        try:
            return super().get_all_trials(study_id, deepcopy, states)
        except KeyError:  # perhaps another thread has let go of it since it was read
            return super().get_all_trials(study_id, deepcopy, states)
