"""The pruners by name, as in `search.pruner`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from search.metric import Metric, sign
from search.pruners.base import Judgement, Pruner
from search.pruners.halving import Hyperband, SuccessiveHalving
from search.pruners.median import Median
from search.pruners.never import Never
from search.pruners.quarters import Quarters

if TYPE_CHECKING:
    import optuna

PrunerName = Literal["none", "median", "successive_halving", "hyperband", "quarters"]


def make_pruner(name: PrunerName, epochs: int) -> Pruner:
    """The pruner of this name for trials of `epochs` epochs."""
    match name:
        case "none":
            return Never()
        case "median":
            return Median(epochs)
        case "successive_halving":
            return SuccessiveHalving(epochs)
        case "hyperband":
            return Hyperband(epochs)
        case "quarters":
            return Quarters(epochs)


def is_pruned(
    pruner: Pruner, trials: Sequence[optuna.trial.FrozenTrial], number: int, until: int, metric: Metric
) -> bool:
    """Whether the pruner ends trial `number` after epoch `until`, which must be one of its rungs and reported.

    `trials` are those of the study, read once after the whole generation has reported that epoch, to query the storage only once.
    """
    return pruner.prunes(Judgement(trials, number, until, sign(metric)))
