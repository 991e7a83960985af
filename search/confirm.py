"""`search confirm`: train the leaders again with several seeds each, and rank them by what they reach on average.

The best of many trials owes part of its place to luck: its value was chosen for being high. Trained again with other seeds it
shows what it reaches on average, and how much a seed matters. A seed decides everything that is drawn at random: initial
weights, dropout, the order of the photos and their views; it is the same for all leaders, so that they are compared seed by seed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from features.atomic import make_folder, only_process
from features.cache import FeatureCache, cache_for
from features.command import log, relative
from features.errors import HeadhuntError, UsageError
from features.executors import Executor, open_executor
from search.config import SearchRun
from search.confirmation import Confirmation, Confirmed, confirmation_file, digests, rank, write_confirmation
from search.hypermodel import HypermodelSpace
from search.hypermodel_training import HypermodelTask, train_hypermodel
from search.leaderboard import Leader, leaders, load_study
from search.objective import Progressed, Task, train_trials
from search.parameters import Space
from search.seed_runs import SeedRun, load_runs, run_key, write_runs
from search.structure import chunks
from search.study import GPU_LANES, check_identity, environment, open_space
from search.trial import TrialConfig

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
    cache = cache_for(run)
    study = load_study(run)
    os.environ.update(environment(run))  # before anything here imports Keras: a hypermodel does
    space = open_space(run.search)
    lock = make_folder(run.workdir) / ".search.lock"
    with only_process(lock, f"a search or a confirmation is running in {run.workdir}"):
        check_identity(run, study, cache, space)
        best = leaders(run, top)
        if len(best) < top:
            log.print(f"Only {len(best)} trials of the study {run.name!r} have run to their end: these are confirmed.")
        drawn = confirmation_seeds(run.search.seed, seeds)
        wanted = [_wanted(run, cache, space, leader, seed) for leader in best for seed in drawn]
        known = load_runs(run.workdir)
        missing = list({each.key: each for each in wanted if each.key not in known}.values())
        for trained in _train(run, cache, missing, seeds):
            known |= {each.key: each for each in trained}
        found = [[known[each.key] for each in wanted if each.leader is leader] for leader in best]
        confirmed = _rank(run, best, drawn, found)
        identity = study.user_attrs["identity"]
        write_confirmation(
            run.workdir,
            Confirmation(
                study=run.name,
                objective=run.search.objective,
                identity=identity,
                leaders=digests(best),
                confirmed=confirmed,
            ),
        )
        study.set_user_attr("confirmed", {str(each.number): _short(each) for each in confirmed})
    return {
        "confirmed": [each.model_dump(mode="json") for each in confirmed],
        "study": run.name,
        "record": relative(confirmation_file(run.workdir)),
        "trained": len(missing),
        "reused": len(wanted) - len(missing),
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


def _wanted(run: SearchRun, cache: FeatureCache, space: Space, leader: Leader, seed: int) -> Wanted:
    views = leader.config.views.checked(cache.copies, cache.manifest.policy)
    config = leader.config.model_copy(update={"seed": seed, "views": views})
    function = space.digest if isinstance(space, HypermodelSpace) else ""
    return Wanted(leader, config, run_key(cache.key, function, run.search.objective, _lanes(run), config))


def _lanes(run: SearchRun) -> int:
    """Trainings side by side, which the rounding of sums depends on."""
    return run.search.lanes or (GPU_LANES if run.search.workers.gpus else 1)


def _train(run: SearchRun, cache: FeatureCache, missing: Sequence[Wanted], seeds: int) -> Iterator[list[SeedRun]]:
    """Trains what is missing; every task is on disk before it is given."""
    if not missing:
        return
    pieces = _pieces(run, missing, seeds)
    copies = max(each.config.views.copies or 0 for each in missing)
    tasks = [_task(run, cache, piece, copies) for piece in pieces]
    progress = Progress(
        TextColumn("trainings"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=log, disable=not log.is_terminal,
    )  # fmt: skip
    threads = run.search.hypermodel is None
    with open_executor(run.search.workers, run.workdir, environment(run), threads) as executor, progress:
        bar, done = progress.add_task("", total=len(missing)), 0
        for number, trained in _results(run, executor, tasks):
            records = [_record(run, *each) for each in zip(pieces[number], trained, strict=True)]
            write_runs(run.workdir, records)
            done += len(records)
            progress.update(bar, completed=done)
            if not log.is_terminal:
                numbers = ", ".join(str(number) for number in dict.fromkeys(each.trial for each in records))
                log.print(f"  {done} of {len(missing)} trainings (now of trial {numbers})")
            yield records


def _pieces(run: SearchRun, missing: Sequence[Wanted], seeds: int) -> list[list[Wanted]]:
    """What goes into a task: trainings of one structure and length, as a rule all seeds of a leader; of a hypermodel, one.

    Side by side, the rounding of sums depends on what a task holds. Tasks are recorded whole, and all are full but the last
    of a structure: those that a killed confirmation left over are the same again.
    """
    if run.search.hypermodel is not None:
        return [[each] for each in missing]
    at_most = _lanes(run) if _lanes(run) > 1 else seeds
    pieces: list[list[Wanted]] = []
    for epochs in sorted({each.config.epochs for each in missing}):
        group = [each for each in missing if each.config.epochs == epochs]
        pieces += [[group[place] for place in piece] for piece in chunks([each.config for each in group], at_most)]
    return pieces


def _task(run: SearchRun, cache: FeatureCache, piece: Sequence[Wanted], copies: int) -> Task:
    configs = tuple(each.config for each in piece)
    return Task(
        configs,
        (None,) * len(configs),
        cache.folder.resolve(),
        make_folder(run.workdir / ".jax").resolve(),
        copies,
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


def _short(confirmed: Confirmed) -> dict[str, Any]:
    """What Optuna's own tools show of a confirmed trial, with the study: a finished trial takes no more attributes."""
    kept = confirmed.model_dump(mode="json", include={"mean", "low", "high", "p_value", "failure"})
    return {**kept, "seeds": len(confirmed.seeds)}
