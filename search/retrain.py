"""A trial's weights: those kept by the search, or retrained from the trial's seed.

A search keeps the weights of its best `search.keep` trials. A training depends only on its configuration, the search's seed and
the cache, so that any other trial's weights can be reproduced, bit for bit on the same kind of machine.
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
    """The weights of a trial's best epoch, by `<layer>.<weight>`; if they were not kept, or (logged) are damaged, retrains the
    trial and keeps them.

    Raises HeadhuntError if the training fails, or if its value differs from the trial's by more than 0.005 of the objective (half
    a point of accuracy): then the cache, the versions or the machine have changed.
    """
    lost = "were not kept"
    if are_kept(run.workdir, leader.number):
        try:
            return load_weights(run.workdir, leader.number)
        except HeadhuntError as error:
            log.print(str(error), style="yellow")
            lost = "were damaged"
    result = _retrain(run, leader)
    if result.failure:
        raise HeadhuntError(f"the weights of trial {leader.number} {lost}, and retraining it failed: {result.failure}.")
    value = float(getattr(result.curves[result.best_epoch - 1], run.search.objective))
    if abs(value - leader.value) > 0.005:
        raise HeadhuntError(
            f"the weights of trial {leader.number} {lost}, and after retraining it reaches {run.search.objective} "
            f"{value:.4f} instead of {leader.value:.4f}. Rerun on the machine of the search, with its versions of JAX and Keras, "
            "or choose a trial whose weights were kept."
        )
    log.print(
        f"The weights of trial {leader.number} {lost}; retrained from its seed, it reaches {run.search.objective} "
        f"{value:.4f} (search: {leader.value:.4f})."
    )
    write_weights(run.workdir, leader.number, result.weights)
    return result.weights


def _retrain(run: SearchRun, leader: Leader) -> TrialResult:
    """Trains in a separate process: Keras in this one may use a different backend than the search."""
    result: TrialResult = in_own_process(environment(run), _train_alone, run, leader.config)
    return result


def _train_alone(run: SearchRun, config: TrialConfig) -> TrialResult:
    objective = open_objective(run.model_copy(update={"search": run.search.model_copy(update={"lanes": 1})}))
    (result,) = objective.trainer(objective.task([config]))
    return result
