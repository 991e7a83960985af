"""Trainings of given configurations, each kept on disk as soon as it has ended: what confirmation and the fidelity study run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from features.runtime.atomic import make_folder
from features.runtime.commands.progress import progress
from features.runtime.errors import HeadhuntError
from features.runtime.workers.executors import Executor, open_executor
from search.config import SearchRun
from search.confirm.seed_runs import SeedRun, load_runs, run_key, write_runs
from search.hypermodels.training import HypermodelTask, train_hypermodel
from search.population.objective import Progressed, Task, train_trials
from search.population.sources import Caches
from search.population.structure import chunks
from search.study import GPU_LANES, environment
from search.trial import TrialConfig


class Training(NamedTuple):
    """A trial's configuration with a seed and views of its own, the share of the training photos that it sees, and the key by
    which its record is found again."""

    trial: int
    config: TrialConfig
    key: str
    train_share: float = 1.0


def training(
    run: SearchRun, caches: Caches, trial: int, config: TrialConfig, function: str = "", train_share: float = 1.0
) -> Training:
    """The training of a configuration with its views filled in; `function` is the digest of a hypermodel's function.

    A probe's is the same for every seed, so that it is solved once.
    """
    config = config.model_copy(update={"views": caches.checked(config.views)})
    if config.is_probe:
        config = config.model_copy(update={"seed": 0})
    cache = caches.of(config.views).key
    key = run_key(cache, function, run.search.objective, side_by_side(run), config, train_share)
    return Training(trial, config, key, train_share)


def train_all(run: SearchRun, caches: Caches, wanted: Sequence[Training]) -> dict[str, SeedRun]:
    """The records of these trainings, by key. Those that are on disk, of whatever command, are not trained again; every task's
    are on disk as soon as it has ended."""
    known = load_runs(run.workdir)
    missing = list({each.key: each for each in wanted if each.key not in known}.values())
    for trained in _train(run, caches, missing):
        known |= {each.key: each for each in trained}
    return {each.key: known[each.key] for each in wanted}


def side_by_side(run: SearchRun) -> int:
    """Trainings side by side, which the rounding of sums depends on."""
    return run.search.lanes or (GPU_LANES if run.search.workers.gpus else 1)


def _train(run: SearchRun, caches: Caches, missing: Sequence[Training]) -> Iterator[list[SeedRun]]:
    """Trains what is missing; every task is on disk before it is given."""
    if not missing:
        return
    pieces = _pieces(run, caches, missing)
    tasks = [_task(run, caches, piece) for piece in pieces]
    threads = run.search.hypermodel is None
    with (
        open_executor(run.search.workers, run.workdir, environment(run), threads) as executor,
        progress("trainings", len(missing)) as advance,
    ):
        for number, trained in _results(run, executor, tasks):
            records = [_record(run, *each) for each in zip(pieces[number], trained, strict=True)]
            write_runs(run.workdir, records)
            advance(len(records))
            yield records


def _pieces(run: SearchRun, caches: Caches, missing: Sequence[Training]) -> list[list[Training]]:
    """What goes into a task, which is recorded as a whole: trainings of one structure and length that are trained side by side
    (on a GPU, as a rule all seeds of several leaders), or one alone where they take turns.

    Side by side, the rounding of sums depends on what a task holds. All tasks are full but the last of a structure, so that
    those that a killed command left over are the same again.
    """
    if run.search.hypermodel is not None:
        return [[each] for each in missing]
    pieces: list[list[Training]] = []
    classes = len(caches.own.class_names)
    # One share after the other: a worker reads the photos of each once.
    for share, epochs in sorted({(each.train_share, each.config.epochs) for each in missing}, reverse=True):
        group = [each for each in missing if (each.train_share, each.config.epochs) == (share, epochs)]
        found = chunks([each.config for each in group], side_by_side(run), caches.width_of, classes)
        pieces += [[group[place] for place in piece] for piece in found]
    return pieces


def _task(run: SearchRun, caches: Caches, piece: Sequence[Training]) -> Task:
    configs = tuple(each.config for each in piece)
    return Task(
        configs,
        (None,) * len(configs),
        caches.sources,
        make_folder(run.workdir / ".jax").resolve(),
        configs[0].epochs,
        run.search.objective,
        configs[0].seed,
        side_by_side(run),
        tuple(config.seed for config in configs),
        piece[0].train_share,
    )


def _results(run: SearchRun, executor: Executor, tasks: list[Task]) -> Iterator[tuple[int, list[Progressed]]]:
    if run.search.hypermodel is None:
        return executor.map(train_trials, tasks)
    return executor.map(train_hypermodel, [HypermodelTask(task, Path.cwd()) for task in tasks])


def _record(run: SearchRun, wanted: Training, progressed: Progressed) -> SeedRun:
    result, number, seed = progressed.result, wanted.trial, wanted.config.seed
    if result.failure and result.failure.startswith("out of memory"):
        # Not the trial's fault: on record, it would never be tried again.
        raise HeadhuntError(
            f"trial {number} with seed {seed} ran {result.failure}. Free memory or lower `search.lanes`, then run the command "
            "again: what is trained is kept."
        )
    return SeedRun.of(wanted.key, number, seed, run.search.objective, result)
