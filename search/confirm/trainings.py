"""Trainings of given configurations, each stored on disk as soon as it is done: used by confirmation and the fidelity study."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from features.runtime.commands.progress import progress
from features.runtime.errors import HeadhuntError
from features.runtime.workers.executors import open_executor
from search.confirm.seed_runs import SeedRun, load_runs, run_key, write_runs
from search.population.feature_objective import FeatureObjective
from search.trial import TrialConfig, TrialResult


class Training(NamedTuple):
    """A trial's configuration with its own seed and views, the share of training photos it sees, and the key of its record."""

    trial: int
    config: TrialConfig
    key: str
    train_share: float = 1.0


def training(objective: FeatureObjective, trial: int, config: TrialConfig, train_share: float = 1.0) -> Training:
    """The training of a configuration with its views filled in.

    A probe's training is the same for every seed, so that it is solved once.
    """
    config = config.model_copy(update={"views": objective.caches.checked(config.views)})
    if config.is_probe:
        config = config.model_copy(update={"seed": 0})
    cache = objective.caches.of(config.views).key
    key = run_key(cache, objective.function, objective.metric, objective.lanes, config, train_share)
    return Training(trial, config, key, train_share)


def train_all(objective: FeatureObjective, wanted: Sequence[Training]) -> dict[str, SeedRun]:
    """The records of these trainings, by key. Records on disk are reused, whichever command wrote them; new ones are written as
    soon as their task is done."""
    known = load_runs(objective.run.workdir)
    missing = list({each.key: each for each in wanted if each.key not in known}.values())
    for trained in _train(objective, missing):
        known |= {each.key: each for each in trained}
    return {each.key: known[each.key] for each in wanted}


def _train(objective: FeatureObjective, missing: Sequence[Training]) -> Iterator[list[SeedRun]]:
    """Trains the missing trainings; each task's records are on disk before they are yielded."""
    if not missing:
        return
    run, pieces = objective.run, _pieces(objective, missing)
    tasks = [
        objective.task(
            [each.config for each in piece],
            seeds=[each.config.seed for each in piece],
            train_share=piece[0].train_share,
        )
        for piece in pieces
    ]
    with (
        open_executor(run.search.workers, run.workdir, objective.environment, objective.threads) as executor,
        progress("trainings", len(missing)) as advance,
    ):
        for number, results in objective.run_tasks(executor, tasks):
            records = [_record(objective, *each) for each in zip(pieces[number], results, strict=True)]
            write_runs(run.workdir, records)
            advance(len(records))
            yield records


def _pieces(objective: FeatureObjective, missing: Sequence[Training]) -> list[list[Training]]:
    """Splits trainings into tasks, each recorded as a whole: trainings of one structure and length side by side (on a GPU,
    usually all seeds of several leaders), or a single one where lanes take turns.

    Side by side, the rounding of sums depends on what a task holds. All tasks but the last of a structure are full, so that
    after a kill the remaining tasks are the same again.
    """
    pieces: list[list[Training]] = []
    # Grouped by share, so that a worker reads the photos of each share once.
    for share in sorted({each.train_share for each in missing}, reverse=True):
        group = [each for each in missing if each.train_share == share]
        found = objective.pieces([each.config for each in group])
        pieces += [[group[place] for place in piece] for piece in found]
    return pieces


def _record(objective: FeatureObjective, wanted: Training, result: TrialResult) -> SeedRun:
    number, seed = wanted.trial, wanted.config.seed
    if result.failure and result.failure.startswith("out of memory"):
        # Not the trial's fault, and a recorded failure would never be retried.
        raise HeadhuntError(
            f"trial {number} with seed {seed} ran {result.failure}. Free memory or lower `search.lanes`, then rerun the same "
            "command; finished trainings are kept."
        )
    return SeedRun.of(wanted.key, number, seed, objective.metric, result)
