"""Successive halving: after 1, 3, 9, 27, … epochs a trial ends unless it is in the best third of those that got there.

Asynchronous successive halving (Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020) and Hyperband (Li et al.,
2018), with the decisions of Optuna's SuccessiveHalvingPruner and HyperbandPruner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from search.pruners.base import Judgement

if TYPE_CHECKING:
    import optuna

REDUCTION = 3
"""One trial in three continues at every rung, and each rung is three times as late as the one before."""

STUDY = "headhunt"
"""Optuna draws brackets from the study's name; here all studies use the same one."""


@dataclass(frozen=True)
class SuccessiveHalving:
    """For trials of `epochs` epochs. The first trial at a rung always continues."""

    epochs: int

    def rungs(self) -> list[int]:
        return _powers(self.epochs)

    def prunes(self, judgement: Judgement) -> bool:
        return _is_outranked(judgement, judgement.field)


@dataclass(frozen=True)
class Hyperband:
    """For trials of `epochs` epochs: halving in brackets. Bracket b has its first rung at 3^b epochs; trials compete within their
    bracket.

    A trial's bracket follows from its number alone, drawn as Optuna draws it in a study named STUDY. Early brackets get more
    trials, so that all spend about the same number of epochs.
    """

    epochs: int

    def rungs(self) -> list[int]:
        return _powers(self.epochs)

    def prunes(self, judgement: Judgement) -> bool:
        bracket = self.bracket(judgement.number)
        rivals = [trial for trial in judgement.field if self.bracket(trial.number) == bracket]
        return judgement.until >= REDUCTION**bracket and _is_outranked(judgement, rivals)

    def bracket(self, number: int) -> int:
        """The bracket of trial `number`; bracket 0 has the earliest rung."""
        return _bracket(self.epochs, number)


def _powers(epochs: int) -> list[int]:
    rungs, rung = [], 1
    while rung < epochs:
        rungs.append(rung)
        rung *= REDUCTION
    return rungs


def _is_outranked(judgement: Judgement, rivals: Sequence[optuna.trial.FrozenTrial]) -> bool:
    """Whether the trial is outside the best third of `rivals`, which includes itself; the best is always kept."""
    values = sorted(map(judgement.at_rung, rivals), reverse=True)
    return judgement.at_rung(judgement.trial) < values[max(1, len(values) // REDUCTION) - 1]


@lru_cache(maxsize=1 << 16)
def _bracket(epochs: int, number: int) -> int:
    pruner, study = _optunas(epochs)
    trial: Any = SimpleNamespace(number=number)
    bracket: int = pruner._get_bracket_id(study, trial)
    return bracket


@lru_cache(maxsize=4)
def _optunas(epochs: int) -> tuple[optuna.pruners.HyperbandPruner, optuna.Study]:
    import optuna

    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=REDUCTION)
    study = optuna.create_study(study_name=STUDY)
    pruner._try_initialization(study)  # required before it assigns brackets
    return pruner, study
