"""Pruners, and the epochs (rungs) after which they are asked.

Optuna's own halving pruners write down, inside the question, that they were asked, so that a driver killed there would be
answered otherwise the second time. `is_pruned` answers as they do from the reported values alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import optuna

REDUCTION = 3
"""Successive halving keeps one trial in three at every rung (Li et al., Hyperband, 2018)."""


_BRACKETS: WeakKeyDictionary[optuna.pruners.BasePruner, dict[str, list[int]]] = WeakKeyDictionary()
"""Hyperband's brackets of a study's trials, by the study's name."""


def make_pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    """Optuna's pruner of this name."""
    import optuna

    match name:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=rungs(name, epochs)[0] - 1)
        case "successive_halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
        case _:
            pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=REDUCTION)
            # It divides trials among brackets only after its first question; a driver that goes on has asked none yet.
            pruner._try_initialization(optuna.create_study())
            return pruner


def rungs(name: str, epochs: int) -> list[int]:
    """The epochs at which trials stop to be judged; the last is the end.

    `none`: only the end; `median`: eighths; halving: 1, 3, 9, 27, …
    """
    if name == "none":
        return [epochs]
    if name == "median":
        stride = -(-epochs // 8)
        return [*range(stride, epochs, stride), epochs]
    steps, rung = [], 1
    while rung < epochs:
        steps.append(rung)
        rung *= REDUCTION
    return [*steps, epochs]


def is_pruned(study: optuna.Study, trials: list[optuna.trial.FrozenTrial], number: int, until: int) -> bool:
    """Whether the study's pruner ends trial `number`, whose values are reported up to the rung `until` at least.

    `trials` are those of the study, read after that report: reading them costs a question to the storage.
    The answer depends on values up to `until` of trials up to `number` (median: of complete trials) and on nothing else, so that
    asking again, also after later values were reported, gives it again.
    """
    import optuna

    pruner = study.pruner
    trial = trials[number]
    if isinstance(pruner, optuna.pruners.HyperbandPruner):
        brackets = _brackets(pruner, study, trials[: number + 1])
        bracket = brackets[number]
        rivals = [rival for rival, other in zip(trials[:number], brackets, strict=False) if other == bracket]
        return until >= REDUCTION**bracket and _is_outranked(study, trial, rivals, until)
    if isinstance(pruner, optuna.pruners.SuccessiveHalvingPruner):
        return _is_outranked(study, trial, trials[:number], until)
    known = {epoch: value for epoch, value in trial.intermediate_values.items() if epoch <= until}
    seen = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, intermediate_values=known)
    return pruner.prune(study, seen)


def _brackets(
    pruner: optuna.pruners.HyperbandPruner, study: optuna.Study, trials: list[optuna.trial.FrozenTrial]
) -> list[int]:
    """The bracket of each trial, at least of these: they are asked for at every rung of every later trial, and Optuna's answer,
    which depends on the study's name and the trial's number, takes a microsecond."""
    known = _BRACKETS.setdefault(pruner, {}).setdefault(study.study_name, [])
    known += [pruner._get_bracket_id(study, trial) for trial in trials[len(known) :]]
    return known


def _is_outranked(
    study: optuna.Study, trial: optuna.trial.FrozenTrial, rivals: list[optuna.trial.FrozenTrial], until: int
) -> bool:
    """Whether the trial is not in the best third of those that reached this rung before it and itself; the best is kept."""
    import optuna

    value = trial.intermediate_values[until]
    sign = -1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1
    costs = sorted(
        sign * rival.intermediate_values[until] for rival in [*rivals, trial] if until in rival.intermediate_values
    )
    return sign * value > costs[max(1, len(costs) // REDUCTION) - 1]
