"""The promotions of a run as a separate Optuna study next to the search: one trial each, with the accuracy of every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from features.runtime.log import relative
from search.driver.storage import open_storage
from search.leaderboard import Leader, load_study
from search.optuna_internals import start_trial, storage_of, trial_id, trial_of
from search.review.describe import short
from train.config import TrainRun
from train.promotion.artifact import Promotion

if TYPE_CHECKING:
    import optuna


class PromotionStudy:
    """The study `<name>-promotions`, whose values are validation accuracies. Only the driver writes to it.

    A promotion is one trial, however often it was interrupted: until it ends, its trial is RUNNING, and a resuming process finds
    it by its `made_from`.
    """

    def __init__(self, run: TrainRun) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._run = run
        self._searched = {trial.number: trial for trial in load_study(run).get_trials(deepcopy=False)}
        self._study = optuna.create_study(
            study_name=f"{run.name}-promotions",
            storage=open_storage(run.search.storage, run.workdir),
            direction="maximize",
            load_if_exists=True,
        )

    def report(self, leader: Leader, folder: Path, made_from: str, accuracies: Sequence[float]) -> None:
        """Reports the epochs (from 0, the frozen network) that the promotion's trial does not have yet."""
        trial = self._begun(leader, folder, made_from)
        known = storage_of(self._study).get_trial(trial_id(trial)).intermediate_values
        for epoch, accuracy in enumerate(accuracies):
            if epoch not in known:
                trial.report(accuracy, epoch)

    def finish(self, leader: Leader, promotion: Promotion, accuracies: Sequence[float]) -> None:
        """Records a finished promotion with these epochs; does nothing if it is already recorded."""
        made_from, test = promotion.made_from, promotion.tuned.test
        if self._found(made_from, "COMPLETE") and not self._found(made_from, "RUNNING"):
            return
        self.report(leader, promotion.folder, made_from, accuracies)
        trial = self._begun(leader, promotion.folder, made_from)
        facts = {
            "stage": promotion.stage,
            "frozen val_accuracy": promotion.frozen.val.accuracy,
            **({} if test is None else {"test_accuracy": test.accuracy}),
            "best_epoch": promotion.best_epoch,
            "seconds": promotion.seconds,
        }
        for name, value in facts.items():
            trial.set_user_attr(name, value)
        self._study.tell(trial, promotion.tuned.val.accuracy)

    def fail(self, leader: Leader, folder: Path, made_from: str, reason: str) -> None:
        """Records a failed promotion."""
        import optuna

        trial = self._begun(leader, folder, made_from)
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def _found(self, made_from: str, state: str) -> optuna.trial.FrozenTrial | None:
        trials = self._study.get_trials(deepcopy=False)
        return next((t for t in trials if t.user_attrs.get("made_from") == made_from and t.state.name == state), None)

    def _begun(self, leader: Leader, folder: Path, made_from: str) -> optuna.Trial:
        """The promotion's running trial; fails running trials left by other configurations of the same promotion."""
        import optuna

        running = self._found(made_from, "RUNNING")
        if running:
            return trial_of(self._study, running)
        for trial in self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if trial.user_attrs.get("trial") == leader.number:
                left = trial_of(self._study, trial)
                left.set_user_attr("reason", "interrupted; the configuration has changed since")
                self._study.tell(left, state=optuna.trial.TrialState.FAIL)
        searched = self._searched[leader.number]
        facts = {
            "trial": leader.number,
            "head": short(leader.config)[0],
            "phases": [phase.title for phase in self._run.train.finetune.plan],
            "folder": relative(folder),
            "made_from": made_from,
        }
        return start_trial(self._study, facts, params=searched.params, distributions=searched.distributions)
