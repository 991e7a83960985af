"""The driver of a study: it asks, runs, reports, prunes and tells; workers never touch the storage.

Trials go in generations of a fixed size: all are asked for, trained rung by rung on the workers, and judged in the order of their
numbers once the whole generation has reached a rung. So the history, and with it every later ask, is the same with one worker
or sixteen, and a study that was killed goes on as if it had not been.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from features.atomic import make_folder, only_process
from features.cache import FeatureCache, cache_for
from features.command import log
from features.errors import HeadhuntError, UsageError
from features.executors import Executor, open_executor
from features.views import Views
from search.config import SearchRun
from search.leaderboard import leaders
from search.objective import Progressed, Task, train_trial
from search.population import TrialState
from search.pruners import is_pruned, make_pruner, rungs
from search.records import claim_trials, keep_weights, write_trial
from search.samplers import ask_again, make_sampler
from search.storage import open_storage, storage_url
from search.trial import TrialConfig

if TYPE_CHECKING:
    import optuna


@dataclass
class Candidate:
    """A trial that is being trained."""

    trial: optuna.Trial
    config: TrialConfig
    progressed: Progressed | None = None
    outcome: dict[str, Any] | None = None

    @property
    def state(self) -> TrialState | None:
        """The state after the last rung."""
        return self.progressed.state if self.progressed else None


def run_search(run: SearchRun) -> dict[str, Any]:
    """Starts the study or goes on with it until it has `search.trials` trials; returns the `--json` object of `search run`.

    Raises UsageError when a study of this name was made with other settings, or another driver runs it.
    """
    import optuna

    started = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cache = cache_for(run)
    views = _check_views(run, cache)
    with only_process(make_folder(run.workdir) / ".search.lock", f"another search is running in {run.workdir}"):
        claim_trials(run.workdir, run.name)
        study = optuna.create_study(
            storage=open_storage(run.search.storage, run.workdir),
            study_name=run.name,
            direction="minimize" if run.search.objective == "val_loss" else "maximize",
            pruner=make_pruner(run.search.pruner, run.search.epochs),
            load_if_exists=True,
        )
        _check_identity(run, study, cache)
        _Driver(run, study, cache, views).drive()
    return _result(run, study, time.monotonic() - started)


def _result(run: SearchRun, study: optuna.Study, seconds: float) -> dict[str, Any]:
    import optuna

    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    counts = {
        "complete": states.count(optuna.trial.TrialState.COMPLETE),
        "pruned": states.count(optuna.trial.TrialState.PRUNED),
        "failed": states.count(optuna.trial.TrialState.FAIL),
    }
    best = None
    if counts["complete"]:
        leader = leaders(run, 1)[0]
        best = {"number": leader.number, "value": leader.value, "params": leader.params}
    url = storage_url(run.search.storage, run.workdir)
    return {"study": run.name, "storage": url, "trials": counts, "best": best, "seconds": round(seconds, 3)}


class _Driver:
    """Generations of trials, from asking to telling."""

    def __init__(self, run: SearchRun, study: optuna.Study, cache: FeatureCache, views: Views) -> None:
        self._run = run
        self._search = run.search
        self._study = study
        self._cache = cache
        self._views = views
        self._copies = cache.copies if "copies" in run.search.space.views else views.copies or 0

    def drive(self) -> None:
        """Goes on until the study has its trials."""
        first = self._next_generation()
        if not first:
            log.print(f"The study {self._run.name!r} has its {self._search.trials} trials.")
            return
        backend = {"KERAS_BACKEND": "jax", "JAX_THREEFRY_PARTITIONABLE": "1"}
        platform = {} if self._search.workers.gpus else {"JAX_PLATFORMS": "cpu"}
        progress = Progress(
            TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[best]}"), TimeRemainingColumn(),
            console=log, disable=not log.is_terminal,
        )  # fmt: skip
        with open_executor(self._search.workers, self._run.workdir, {**backend, **platform}) as executor, progress:
            bar = progress.add_task("", total=self._search.trials, best="")
            generation = first
            while generation:
                started = time.monotonic()
                self._train(executor, generation)
                self._tell(generation)
                best = self._say(generation, time.monotonic() - started)
                told = generation[-1].trial.number + 1
                progress.update(bar, completed=told, best=best)
                generation = self._next_generation()

    def _next_generation(self) -> list[Candidate]:
        """The trials that a killed driver left running, filled up by new ones unless their generation was complete."""
        import optuna

        trials = self._study.get_trials(deepcopy=False)
        left = [trial for trial in trials if trial.state == optuna.trial.TrialState.RUNNING]
        generation = [self._take_up(trial) for trial in left]
        if any(candidate.outcome for candidate in generation):
            return generation
        total = len(trials)
        while total < self._search.trials and (not generation or total % self._search.generation):
            self._study.sampler = make_sampler(self._search.sampler, self._search.seed, total)
            generation.append(self._configure(self._study.ask()))
            total += 1
        return generation

    def _take_up(self, left: optuna.trial.FrozenTrial) -> Candidate:
        import optuna

        self._study.sampler = make_sampler(self._search.sampler, self._search.seed, left.number)
        if "config" not in left.user_attrs:
            return self._configure(ask_again(self._study, left._trial_id))
        trial = optuna.trial.Trial(self._study, left._trial_id)
        config = TrialConfig.model_validate(json.loads(left.user_attrs["config"]))
        return Candidate(trial, config, outcome=left.user_attrs.get("outcome"))

    def _configure(self, trial: optuna.Trial) -> Candidate:
        seed = int(np.random.SeedSequence([self._search.seed, trial.number]).generate_state(1)[0])
        config = self._search.space.suggest(trial, self._views, self._search.epochs, seed)
        views = config.views.checked(self._cache.copies, self._cache.manifest.policy)
        config = config.model_copy(update={"views": views})
        trial.set_user_attr("cache", self._cache.key)
        trial.set_user_attr("config", config.model_dump_json())
        return Candidate(trial, config)

    def _train(self, executor: Executor, generation: list[Candidate]) -> None:
        """Trains a generation rung by rung; gives every candidate its outcome, recorded before any trial is told."""
        for until in rungs(self._search.pruner, self._search.epochs):
            alive = [candidate for candidate in generation if candidate.outcome is None]
            tasks = [self._task(candidate, until) for candidate in alive]
            for position, progressed in executor.map(train_trial, tasks):
                alive[position].progressed = progressed
            for candidate in alive:
                self._judge(candidate, until)
        for candidate in generation:
            if candidate.progressed is not None:
                self._record(candidate)

    def _task(self, candidate: Candidate, until: int) -> Task:
        return Task(
            candidate.config,
            self._cache.folder.resolve(),
            make_folder(self._run.workdir / ".jax").resolve(),
            self._copies,
            candidate.state,
            until,
            self._search.objective,
            self._search.seed,
        )

    def _judge(self, candidate: Candidate, until: int) -> None:
        """Reports the rung's epochs and asks the pruner; sets the outcome of a trial that ends here."""
        import optuna

        assert candidate.progressed is not None
        result, trial = candidate.progressed.result, candidate.trial
        known = self._study._storage.get_trial(trial._trial_id).intermediate_values
        for metrics in result.curves:
            if metrics.epoch not in known:
                trial.report(getattr(metrics, self._search.objective), metrics.epoch)
        if result.failure:
            candidate.outcome = {"state": optuna.trial.TrialState.FAIL.name, "reason": result.failure}
        elif until == self._search.epochs:
            value = getattr(result.curves[result.best_epoch - 1], self._search.objective)
            candidate.outcome = {"state": optuna.trial.TrialState.COMPLETE.name, "value": value}
        elif is_pruned(self._study, trial.number, until):
            candidate.outcome = {"state": optuna.trial.TrialState.PRUNED.name}

    def _record(self, candidate: Candidate) -> None:
        assert candidate.progressed is not None
        result, trial = candidate.progressed.result, candidate.trial
        write_trial(self._run.workdir, trial.number, candidate.config, result)
        if result.best_epoch:
            trial.set_user_attr("best_epoch", result.best_epoch)
            trial.set_user_attr("top5", result.curves[result.best_epoch - 1].val_top5_accuracy)
        if result.failure:
            trial.set_user_attr("reason", result.failure)
        trial.set_user_attr("outcome", candidate.outcome)

    def _tell(self, generation: list[Candidate]) -> None:
        """Tells the outcomes in the order of the numbers, then drops the weights of trials that are not among the best."""
        import optuna

        for candidate in generation:
            assert candidate.outcome is not None
            state = optuna.trial.TrialState[candidate.outcome["state"]]
            self._study.tell(candidate.trial.number, candidate.outcome.get("value"), state=state)
        complete = self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if complete:
            keep_weights(self._run.workdir, [leader.number for leader in leaders(self._run, self._search.keep)])
        elif all(candidate.outcome and candidate.outcome["state"] == "FAIL" for candidate in generation):
            reason = generation[0].outcome["reason"] if generation[0].outcome else ""
            raise HeadhuntError(
                f"all {len(generation)} trials so far have failed; the first: {reason}. Lower the learning rates in "
                "`search.space.schedule.learning_rate`, or check the features with `headhunt features verify`."
            )

    def _say(self, generation: list[Candidate], seconds: float) -> str:
        """One line on a generation; gives the best value so far as text."""
        states = [candidate.outcome["state"] for candidate in generation if candidate.outcome]
        best = "none has finished yet"
        if any(t.value is not None and t.state.name == "COMPLETE" for t in self._study.get_trials(deepcopy=False)):
            leader = leaders(self._run, 1)[0]
            best = f"best {self._search.objective} {leader.value:.4f} (trial {leader.number})"
        if not log.is_terminal:
            numbers = f"{generation[0].trial.number}–{generation[-1].trial.number}"
            said = ", ".join(
                f"{states.count(s)} {w}" for s, w in (("PRUNED", "pruned"), ("FAIL", "failed")) if s in states
            )
            log.print(
                f"  trials {numbers} of {self._search.trials}{f' ({said})' if said else ''}: {best}, {seconds:.1f} s"
            )
        return best


def _check_views(run: SearchRun, cache: FeatureCache) -> Views:
    """The views of the section, completed; UsageError when they, or a choice in the space, ask for what is not cached."""
    policy = cache.manifest.policy
    for name, leaf in run.search.space.views.items():
        values = list(leaf.values()) if isinstance(leaf, dict) else leaf if isinstance(leaf, list) else [leaf]
        for value in values if name in ("copies", "policy") else []:
            Views.model_validate({name: value}).checked(cache.copies, policy)
    return run.search.views.checked(cache.copies, policy)


def _identity(run: SearchRun, cache: FeatureCache) -> dict[str, Any]:
    """What a study's results depend on, besides the number of its trials."""
    names = {"space", "seed", "epochs", "objective", "generation", "sampler", "pruner", "views"}
    return {**run.search.model_dump(mode="json", include=names), "cache": cache.key}


def _check_identity(run: SearchRun, study: optuna.Study, cache: FeatureCache) -> None:
    identity = _identity(run, cache)
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
        return
    changed = [name for name in identity if known.get(name) != identity[name]]
    if changed:
        shown = ", ".join(
            f"{name} (was {json.dumps(known.get(name))}, is {json.dumps(identity[name])})"
            if name != "space"
            else "space"
            for name in changed
        )
        raise UsageError(
            f"the study {run.name!r} was made with other settings: {shown}. Give the new study another `name` and "
            "`workdir`, or set the old values to go on."
        )


def show_size(size: float) -> str:
    """The size of a search space as text."""
    return "infinite: it has continuous ranges" if math.isinf(size) else f"{size:,.0f}"
