"""`search confirm`: retrains the leaders with several seeds each and ranks them by their mean.

The best of many trials may owe its place to a lucky seed: it was selected for its high value. Retraining with other seeds shows
what it reaches on average, and how much the seed matters. A seed decides everything that is drawn at random: initial weights,
dropout, the order of the photos and their views. All leaders get the same seeds, so that they are compared seed by seed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from features.dataset.index import load_index
from features.runtime.atomic import make_folder, only_process
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import log, relative
from features.runtime.workers.executors import check_devices
from search.config import ConfirmConfig, SearchRun
from search.confirm.ranking import (
    Confirmation,
    Confirmed,
    confirmation_file,
    digests,
    rank,
    to_confirm,
    write_confirmation,
)
from search.confirm.seed_runs import SeedRun, load_runs
from search.confirm.trainings import train_all, training
from search.driver.identity import check_identity
from search.engine import environment
from search.leaderboard import Leader, leaders, load_study
from search.metric import is_share
from search.objectives import open_objective
from search.review.study_note import write_study_note
from search.searched_views import with_stored_views

if TYPE_CHECKING:
    import optuna


def confirm(run: SearchRun, top: int | None = None, seeds: int | None = None) -> dict[str, Any]:
    """Confirms the `top` leaders and the linear probe over this many seeds (default: `search.confirm`); returns the `--json`
    object of `search confirm`.

    Trainings on disk are reused, whether from a confirmation that was killed or from one with fewer leaders or seeds. Raises
    UsageError for too few leaders or seeds, if there is no study, if its settings differ, or while a search is running.
    """
    import optuna

    started = time.monotonic()
    settings = run.search.confirm or ConfirmConfig()
    top, seeds = settings.top if top is None else top, settings.seeds if seeds is None else seeds
    _check_numbers(top, seeds)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = load_study(run)
    run = with_stored_views(run, study)
    os.environ.update(environment(run))  # before anything here imports Keras: a hypermodel does
    check_devices(run.search.workers)
    objective = open_objective(run)
    lock = make_folder(run.workdir) / ".search.lock"
    with only_process(lock, f"a search or a confirmation is running in {run.workdir}"):
        check_identity(study, objective)
        every = leaders(run)
        if len(every) < top:
            log.print(f"Only {len(every)} trials of the study {run.name!r} are completed, not {top}. Confirming these.")
        best = to_confirm(every, top)
        drawn = confirmation_seeds(run.search.seed, seeds)
        wanted = {
            leader.number: [
                training(objective, leader.number, leader.config.model_copy(update={"seed": seed})) for seed in drawn
            ]
            for leader in best
        }
        trainings = [each for own in wanted.values() for each in own]
        before = load_runs(run.workdir)
        known = train_all(objective, trainings)
        found = [[known[each.key] for each in wanted[leader.number]] for leader in best]
        confirmed = _rank(run, best, drawn, found)
        _write(run, study, best, confirmed)
    return {
        "confirmed": [each.model_dump(mode="json") for each in confirmed],
        "study": run.name,
        "record": relative(confirmation_file(run.workdir)),
        "trained": len({each.key for each in trainings} - set(before)),
        "reused": sum(each.key in before for each in trainings),
        "seconds": round(time.monotonic() - started, 3),
    }


def confirmation_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Seeds derived from the search's seed and different from it; a larger `count` extends the list."""
    drawn: list[int] = []
    for child in np.random.SeedSequence(seed).spawn(count + 1):
        value = int(child.generate_state(1)[0])
        if value != seed and value not in drawn:
            drawn.append(value)
    return tuple(drawn[:count])


def _check_numbers(top: int, seeds: int) -> None:
    if top < 1:
        raise UsageError(f"--top: received {top}; at least 1 leader must be confirmed, e.g. --top 5.")
    if seeds < 2:
        raise UsageError(f"--seeds: received {seeds}; an interval needs at least 2 seeds, e.g. --seeds 5.")


def _rank(
    run: SearchRun, best: Sequence[Leader], seeds: Sequence[int], found: Sequence[Sequence[SeedRun]]
) -> tuple[Confirmed, ...]:
    """The ranking; HeadhuntError if no leader completed all of its seeds."""
    step = 1 / len(load_index(run).of_split("val")) if is_share(run.search.objective) else 0.0
    ranked = rank(run.search.objective, best, seeds, found, step)
    if ranked[0].failure:
        raise HeadhuntError(
            f"none of the {len(best)} leaders completed all {len(seeds)} seeds; trial {best[0].number} failed with "
            f"{ranked[0].failure}. Lower the learning rates in the search space and search again."
        )
    return ranked


def _write(run: SearchRun, study: optuna.Study, best: Sequence[Leader], confirmed: tuple[Confirmed, ...]) -> None:
    """Writes the ranking into the run's folder and stores it with the study."""
    confirmation = Confirmation(
        study=run.name,
        objective=run.search.objective,
        identity=study.user_attrs["identity"],
        comparison="tukey and paired t",
        leaders=digests(best),
        confirmed=confirmed,
    )
    write_confirmation(run.workdir, confirmation)
    study.set_user_attr("confirmed", {str(each.number): _short(each) for each in confirmed})
    write_study_note(run, study)


def _short(confirmed: Confirmed) -> dict[str, Any]:
    """What Optuna's tools show of a confirmed trial: stored with the study, since a finished trial takes no more attributes."""
    kept = confirmed.model_dump(mode="json", include={"mean", "low", "high", "p_value", "failure"})
    return {**kept, "seeds": len(confirmed.seeds)}
