"""`search run`: starts or resumes the study of a run."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from features.audit.variation import warn_of_constant_features
from features.dataset.index import load_index
from features.runtime.atomic import make_folder, only_process
from features.runtime.log import log
from features.runtime.workers.executors import check_devices
from search.config import SearchRun
from search.driver.driver import Driver
from search.driver.identity import check_identity
from search.driver.ownership import owned
from search.driver.stopping import End
from search.driver.storage import open_storage, storage_faults, storage_url, truncate_partial_record
from search.engine import environment
from search.first_trials import log_left_out
from search.metric import direction
from search.objectives import open_objective
from search.population.sources import Caches
from search.ranking import is_external, ranking
from search.records import claim_trials
from search.review.study_note import write_study_note
from search.samplers.choice import make_sampler
from search.searched_views import with_stored_views

if TYPE_CHECKING:
    import optuna


def run_search(run: SearchRun) -> dict[str, Any]:
    """Starts or resumes the study until it ends (see `search.driver.stopping`); returns the `--json` object of `search run`.

    Raises UsageError if the study was started with other settings, or if another driver is running it.
    """
    import optuna

    started = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_devices(run.search.workers)
    caches = Caches(run)
    warn_of_constant_features(caches.own, load_index(run))
    os.environ.update(environment(run))  # before anything here imports Keras: hypermodels and KerasTuner's oracles do
    objective = open_objective(run, caches)
    search = run.search
    make_sampler(
        search.sampler, objective.space, search.seed, 0, search.epochs
    )  # fails here if it cannot search this space
    storage, url = (search.storage, run.workdir), storage_url(search.storage, run.workdir)
    with (
        only_process(make_folder(run.workdir) / ".search.lock", f"another search is running in {run.workdir}"),
        storage_faults(*storage),
    ):
        claim_trials(run.workdir, run.name)
        truncate_partial_record(*storage)
        study = optuna.create_study(
            storage=open_storage(*storage),
            study_name=run.name,
            direction=direction(search.objective),
            pruner=optuna.pruners.NopPruner(),  # the driver prunes; Optuna's Hyperband would hide trials from the sampler
            load_if_exists=True,
        )
        made = with_stored_views(run, study)
        if made is not run:
            run, objective = made, open_objective(made)
        with owned(study, lambda: open_storage(*storage), url) as ownership:
            objective.check()
            check_identity(study, objective)
            log_left_out(search.first, study, search.hypermodel is not None)
            end = Driver(run.workdir, run.search, study, objective, ownership).drive()
            write_study_note(run, study)
        log.print(end.why)
        return _result(run, study, end, time.monotonic() - started)


def _result(run: SearchRun, study: optuna.Study, end: End, seconds: float) -> dict[str, Any]:
    import optuna

    states = [trial.state for trial in study.get_trials(deepcopy=False) if not is_external(trial)]
    counts = {
        "complete": states.count(optuna.trial.TrialState.COMPLETE),
        "pruned": states.count(optuna.trial.TrialState.PRUNED),
        "failed": states.count(optuna.trial.TrialState.FAIL),
    }
    best = None
    if leaders := ranking(study, run.search.objective):
        best = {"number": leaders[0].number, "value": leaders[0].value, "params": leaders[0].params}
    ended = {"ended": end.by, "seconds": round(seconds, 3)}
    url = storage_url(run.search.storage, run.workdir)
    return {"study": run.name, "storage": url, "trials": counts, "best": best, **ended}
