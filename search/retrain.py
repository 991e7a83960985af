"""A trial's weights: as the search kept them, or trained again from the trial's seed where it did not.

A search keeps the weights of its best `search.keep` trials. A training depends on its configuration, the search's seed and the
cache alone, so that any other trial's weights can be had again, on the same kind of machine bit by bit.
"""

from __future__ import annotations

from features.runtime.errors import HeadhuntError
from features.runtime.log import log
from features.runtime.workers.executors import in_own_process
from search.config import SearchRun
from search.engine import environment
from search.heads import Weights
from search.leaderboard import Leader
from search.objectives import open_objective
from search.records import are_kept, load_weights, write_weights
from search.trial import TrialConfig, TrialResult


def trial_weights(run: SearchRun, leader: Leader) -> Weights:
    """The weights of a trial's best epoch, by `<layer>.<weight>`; those that were not kept are trained again, and kept.

    Raises HeadhuntError when the training fails, or when it does not reach what the trial did, by more than half a point of
    accuracy (0.005 of the objective): the cache, the versions or the machine are others then.
    """
    if are_kept(run.workdir, leader.number):
        return load_weights(run.workdir, leader.number)
    result = _retrain(run, leader)
    if result.failure:
        raise HeadhuntError(
            f"the weights of trial {leader.number} were not kept, and training it again failed: {result.failure}."
        )
    value = float(getattr(result.curves[result.best_epoch - 1], run.search.objective))
    if abs(value - leader.value) > 0.005:
        raise HeadhuntError(
            f"the weights of trial {leader.number} were not kept, and trained again it reaches {run.search.objective} "
            f"{value:.4f} instead of {leader.value:.4f}. Go on where the search ran, with its versions of JAX and Keras, or "
            "choose a trial whose weights are kept."
        )
    log.print(
        f"The weights of trial {leader.number} were not kept; trained again from its seed, it reaches {run.search.objective} "
        f"{value:.4f} (in the search {leader.value:.4f})."
    )
    write_weights(run.workdir, leader.number, result.weights)
    return result.weights


def _retrain(run: SearchRun, leader: Leader) -> TrialResult:
    """Trains in a process of its own: this one's Keras may be on another backend than a search's."""
    result: TrialResult = in_own_process(environment(run), _train_alone, run, leader.config)
    return result


def _train_alone(run: SearchRun, config: TrialConfig) -> TrialResult:
    objective = open_objective(run.model_copy(update={"search": run.search.model_copy(update={"lanes": 1})}))
    (result,) = objective.trainer(objective.task([config]))
    return result
