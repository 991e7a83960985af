"""Pruners, and the epochs (rungs) after which they are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

REDUCTION = 3
"""Successive halving keeps one trial in three at every rung (Li et al., Hyperband, 2018)."""


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
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=REDUCTION)


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
