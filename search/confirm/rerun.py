"""`search confirm`: train the leaders again with several seeds each, and rank them by what they reach on average.

The best of many trials may owe its place to a lucky seed: its value was chosen for being high. Trained again with other seeds it
shows what it reaches on average, and how much a seed matters. A seed decides everything that is drawn at random: initial
weights, dropout, the order of the photos and their views; it is the same for all leaders, so that they are compared seed by seed.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from features.atomic import make_folder, only_process
from features.command import log, relative
from features.errors import HeadhuntError, UsageError
from features.executors import Executor, open_executor
from search.config import SearchRun
from search.confirm.ranking import Confirmation, Confirmed, confirmation_file, digests, rank, write_confirmation
from search.confirm.seed_runs import SeedRun, load_runs, run_key, write_runs
from search.hypermodel import HypermodelSpace
from search.hypermodel_training import HypermodelTask, train_hypermodel
from search.leaderboard import Leader, leaders, load_study
from search.parameters import Space
from search.population.objective import Progressed, Task, train_trials
from search.population.sources import Caches
from search.population.structure import chunks
from search.study import GPU_LANES, check_identity, environment, open_space
from search.trial import TrialConfig

if TYPE_CHECKING:
    import optuna

TOP = 8
"""Leaders that are confirmed unless told otherwise."""

SEEDS = 5
"""Seeds for each of them."""


class Wanted(NamedTuple):
    """A leader's configuration with one of the seeds, and the key of its training."""

    leader: Leader
    config: TrialConfig
    key: str


def confirm(run: SearchRun, top: int = TOP, seeds: int = SEEDS) -> dict[str, Any]:
    """Confirms the `top` leaders over this many seeds; returns the `--json` object of `search confirm`.

    What has been trained for a leader and a seed is not trained again, be it by a confirmation that was killed or by one of
    fewer leaders or seeds. Raises UsageError for numbers that make no ranking, where there is no study, where its settings are
    others, or while a search is running.
    """
    import optuna

    started = time.monotonic()
    _check_numbers(top, seeds)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    caches = Caches(run)
    study = load_study(run)
    os.environ.update(environment(run))  # before anything here imports Keras: a hypermodel does
    space = open_space(run.search)
    lock = make_folder(run.workdir) / ".search.lock"
    with only_process(lock, f"a search or a confirmation is running in {run.workdir}"):
        check_identity(run, study, caches, space)
        best = leaders(run, top)
        if len(best) < top:
            log.print(
                f"{len(best)} trials of the study {run.name!r} have run to their end, not {top}: these are confirmed."
            )
        drawn = confirmation_seeds(run.search.seed, seeds)
        wanted = [_wanted(run, caches, space, leader, seed) for leader in best for seed in drawn]
        known = load_runs(run.workdir)
        missing = list({each.key: each for each in wanted if each.key not in known}.values())
        reused = sum(each.key in known for each in wanted)
        for trained in _train(run, caches, missing):
            known |= {each.key: each for each in trained}
        found = [[known[each.key] for each in wanted if each.leader is leader] for leader in best]
        confirmed = _rank(run, best, drawn, found)
        _write(run, study, best, confirmed)
    return {
        "confirmed": [each.model_dump(mode="json") for each in confirmed],
        "study": run.name,
        "record": relative(confirmation_file(run.workdir)),
        "trained": len(missing),
        "reused": reused,
        "seconds": round(time.monotonic() - started, 3),
    }


def confirmation_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Seeds that follow from the search's and are other than it; the first ones are the same for every `count`."""
    drawn: list[int] = []
    for child in np.random.SeedSequence(seed).spawn(count + 1):
        value = int(child.generate_state(1)[0])
        if value != seed and value not in drawn:
            drawn.append(value)
    return tuple(drawn[:count])


def _check_numbers(top: int, seeds: int) -> None:
    if top < 1:
        raise UsageError(f"--top: received {top}; at least 1 leader must be confirmed, e.g. --top {TOP}.")
    if seeds < 2:
        raise UsageError(
            f"--seeds: received {seeds}; an interval needs at least 2 seeds, and says little with fewer than {SEEDS}. "
            f"E.g. --seeds {SEEDS}."
        )


def _wanted(run: SearchRun, caches: Caches, space: Space, leader: Leader, seed: int) -> Wanted:
    views = caches.checked(leader.config.views)
    config = leader.config.model_copy(update={"seed": seed, "views": views})
    function = space.digest if isinstance(space, HypermodelSpace) else ""
    return Wanted(leader, config, run_key(caches.of(views).key, function, run.search.objective, _lanes(run), config))


def _lanes(run: SearchRun) -> int:
    """Trainings side by side, which the rounding of sums depends on."""
    return run.search.lanes or (GPU_LANES if run.search.workers.gpus else 1)


def _train(run: SearchRun, caches: Caches, missing: Sequence[Wanted]) -> Iterator[list[SeedRun]]:
    """Trains what is missing; every task is on disk before it is given."""
    if not missing:
        return
    pieces = _pieces(run, caches, missing)
    tasks = [_task(run, caches, piece) for piece in pieces]
    progress = Progress(
        TextColumn("trainings"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=log, disable=not log.is_terminal,
    )  # fmt: skip
    threads = run.search.hypermodel is None
    with open_executor(run.search.workers, run.workdir, environment(run), threads) as executor, progress:
        bar, done = progress.add_task("", total=len(missing)), 0
        left = Counter(each.leader.number for each in missing)
        for number, trained in _results(run, executor, tasks):
            records = [_record(run, *each) for each in zip(pieces[number], trained, strict=True)]
            write_runs(run.workdir, records)
            done += len(records)
            left.subtract(each.trial for each in records)
            progress.update(bar, completed=done)
            for ended in {each.trial: None for each in records if not left[each.trial] and not log.is_terminal}:
                log.print(f"  trial {ended} has all its seeds; {done} of {len(missing)} trainings")
            yield records


def _pieces(run: SearchRun, caches: Caches, missing: Sequence[Wanted]) -> list[list[Wanted]]:
    """What goes into a task, which is recorded as a whole: trainings of one structure and length that are trained side by side
    (on a GPU, as a rule all seeds of several leaders), or one alone where they take turns.

    Side by side, the rounding of sums depends on what a task holds. All tasks are full but the last of a structure, so that
    those that a killed confirmation left over are the same again.
    """
    if run.search.hypermodel is not None:
        return [[each] for each in missing]
    pieces: list[list[Wanted]] = []
    width, classes = caches.own.feature_shape[-1], len(caches.own.class_names)
    for epochs in sorted({each.config.epochs for each in missing}):
        group = [each for each in missing if each.config.epochs == epochs]
        found = chunks([each.config for each in group], _lanes(run), width, classes)
        pieces += [[group[place] for place in piece] for piece in found]
    return pieces


def _task(run: SearchRun, caches: Caches, piece: Sequence[Wanted]) -> Task:
    configs = tuple(each.config for each in piece)
    return Task(
        configs,
        (None,) * len(configs),
        caches.sources,
        make_folder(run.workdir / ".jax").resolve(),
        configs[0].epochs,
        run.search.objective,
        configs[0].seed,
        _lanes(run),
        tuple(config.seed for config in configs),
    )


def _results(run: SearchRun, executor: Executor, tasks: list[Task]) -> Iterator[tuple[int, list[Progressed]]]:
    if run.search.hypermodel is None:
        return executor.map(train_trials, tasks)
    return executor.map(train_hypermodel, [HypermodelTask(task, Path.cwd()) for task in tasks])


def _record(run: SearchRun, wanted: Wanted, progressed: Progressed) -> SeedRun:
    result, number, seed = progressed.result, wanted.leader.number, wanted.config.seed
    if result.failure and result.failure.startswith("out of memory"):
        # Not the trial's fault: on record, it would never be tried again.
        raise HeadhuntError(
            f"trial {number} with seed {seed} ran {result.failure}. Free memory or lower `search.lanes`, then run the command "
            "again: what is trained is kept."
        )
    return SeedRun.of(wanted.key, number, seed, run.search.objective, result)


def _rank(
    run: SearchRun, best: Sequence[Leader], seeds: Sequence[int], found: Sequence[Sequence[SeedRun]]
) -> tuple[Confirmed, ...]:
    """The ranking; HeadhuntError when no leader got through all of its seeds."""
    reasons = [
        next((f"seed {seed}: {each.failure}" for seed, each in zip(seeds, runs, strict=True) if each.failure), None)
        for runs in found
    ]
    if None not in reasons:
        raise HeadhuntError(
            f"none of the {len(best)} leaders got through all {len(seeds)} seeds; trial {best[0].number} failed with "
            f"{reasons[0]}. Lower the learning rates in the search space and search anew."
        )
    values = [[None if each.failure else each.value for each in runs] for runs in found]
    return rank(run.search.objective, best, seeds, values, reasons)


def _write(run: SearchRun, study: optuna.Study, best: Sequence[Leader], confirmed: tuple[Confirmed, ...]) -> None:
    """Leaves the ranking in the run's folder and with the study."""
    confirmation = Confirmation(
        study=run.name,
        objective=run.search.objective,
        identity=study.user_attrs["identity"],
        leaders=digests(best),
        confirmed=confirmed,
    )
    write_confirmation(run.workdir, confirmation)
    study.set_user_attr("confirmed", {str(each.number): _short(each) for each in confirmed})


def _short(confirmed: Confirmed) -> dict[str, Any]:
    """What Optuna's own tools show of a confirmed trial, with the study: a finished trial takes no more attributes."""
    kept = confirmed.model_dump(mode="json", include={"mean", "low", "high", "p_value", "failure"})
    return {**kept, "seeds": len(confirmed.seeds)}
