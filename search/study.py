"""The driver of a study: it asks, runs, reports, prunes and tells; workers never touch the storage.

Trials go in generations of a fixed size: all are asked for, trained rung by rung on the workers, those of one structure together,
and judged in the order of their numbers once the whole generation has reached a rung. So the history, and with it every later
ask, is the same with one worker or sixteen, and a study that was killed goes on as if it had not been.
"""

from __future__ import annotations

import json
import math
import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.audit.variation import warn_of_constant_features
from features.cache.views import Views
from features.dataset.index import load_index
from features.runtime.atomic import make_folder, only_process
from features.runtime.log import log
from features.runtime.workers.executors import Executor, open_executor
from search.candidate import Candidate, final_outcome
from search.config import SearchRun
from search.first_trials import ATTRIBUTE, FirstTrial, expressed, first_config, first_of, fixed_sampler, log_left_out
from search.hypermodels.check import check_first_model
from search.hypermodels.space import HypermodelSpace
from search.hypermodels.training import HypermodelTask, train_hypermodel
from search.identity import check_identity
from search.ownership import Ownership, owned
from search.parameters import Space
from search.population.objective import Progressed, Task, give_up, train_trials
from search.population.sources import Caches
from search.population.structure import chunks
from search.pruners.choice import is_pruned, make_pruner
from search.ranking import VAL_LOSS, Score, is_added, is_ours, ranking
from search.records import claim_trials, keep_weights, write_trial
from search.review.describe import short
from search.review.notes import draw_pictures, write_reviews
from search.review.progress import Best, Progress, Standing
from search.samplers.choice import ask_again, ends, make_sampler
from search.samplers.oracles import allotment, hyperband_trials
from search.searched_views import as_made, resolved_space
from search.set_aside import ask, take_up, under_way
from search.stopping import End, check_failures, reached_end, space_is_used_up
from search.storage import mend_journal, open_storage, storage_faults, storage_url
from search.trial import TrialConfig
from search.worklog import Work, WorkLog

if TYPE_CHECKING:
    import optuna


GPU_LANES = 64
"""Trials that a GPU trains side by side where `search.lanes` does not say otherwise."""


def run_search(run: SearchRun) -> dict[str, Any]:
    """Starts the study or goes on with it until it has `search.trials` trials; returns the `--json` object of `search run`.

    Raises UsageError when a study of this name was made with other settings, or another driver runs it.
    """
    import optuna

    started = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    caches = Caches(run)
    warn_of_constant_features(caches.own, load_index(run))
    os.environ.update(environment(run))  # before anything here imports Keras: hypermodels and KerasTuner's oracles do
    space = open_space(run)
    make_sampler(run.search.sampler, space, run.search.seed, 0, run.search.epochs)  # refused here, or never
    storage, url = (run.search.storage, run.workdir), storage_url(run.search.storage, run.workdir)
    with (
        only_process(make_folder(run.workdir) / ".search.lock", f"another search is running in {run.workdir}"),
        storage_faults(*storage),
    ):
        claim_trials(run.workdir, run.name)
        mend_journal(*storage)
        study = optuna.create_study(
            storage=open_storage(*storage),
            study_name=run.name,
            direction="minimize" if run.search.objective == "val_loss" else "maximize",
            pruner=optuna.pruners.NopPruner(),  # the driver judges; Optuna's Hyperband would hide trials from the sampler
            load_if_exists=True,
        )
        made = as_made(run, study)
        if made is not run:
            run, caches, space = made, Caches(made), open_space(made)
        with owned(study, lambda: open_storage(*storage), url) as ownership:
            check_identity(run, study, caches, space)
            if isinstance(space, HypermodelSpace):
                check_first_model(space, run, caches)
            log_left_out(run.search.first, study, run.search.hypermodel is not None)
            end = _Driver(run, study, caches, space, ownership).drive()
        log.print(end.why)
        return _result(run, study, end, time.monotonic() - started)


def _result(run: SearchRun, study: optuna.Study, end: End, seconds: float) -> dict[str, Any]:
    import optuna

    states = [trial.state for trial in study.get_trials(deepcopy=False) if not is_added(trial)]
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


class _Driver:
    """Generations of trials, from asking to telling."""

    def __init__(self, run: SearchRun, study: optuna.Study, caches: Caches, space: Space, ownership: Ownership) -> None:
        self._run = run
        self._space = space
        self._search = run.search
        self._study = study
        self._caches = caches
        self._lanes = run.search.lanes or (GPU_LANES if run.search.workers.gpus else 1)
        self._ownership = ownership
        self._pruner = make_pruner(run.search.pruner, run.search.epochs)
        workers = run.search.workers
        at_a_time = 1 if workers.executor == "local" and run.search.hypermodel else workers.count
        self._first = first_of(study)
        self._log = WorkLog(run.workdir, at_a_time, goes_on=bool(study.get_trials(deepcopy=False)))
        self._end: End | None = None

    def drive(self) -> End:
        """Goes on until the study is at its end; says which."""
        if end := self._reached_end():
            return end
        if self._search.sampler == "keras_tuner.hyperband":
            needed = hyperband_trials(self._search.epochs)
            log.print(f"KerasTuner's Hyperband: all its brackets take {needed} trials, then they begin anew.")
        variables, threads = environment(self._run), self._search.hypermodel is None
        with (  # no trial is asked for before there is something to train it
            open_executor(self._search.workers, self._run.workdir, variables, threads) as executor,
            self._progress() as progress,
        ):
            while generation := self._next_generation():
                self._train(executor, generation, progress)
                self._tell(generation)
                progress.told()
        assert self._end is not None
        return self._end

    def _reached_end(self) -> End | None:
        """The end that the study is at, with nothing asked for; None while trials are under way or left to ask for."""
        check_failures(self._study)
        if under_way(self._study):
            return None
        if end := reached_end(self._study, self._search, self._ownership.seconds):
            return end
        reason = ends(self._sampler(), self._study)
        return space_is_used_up(self._study, len(self._ours()), reason) if reason else None

    def _next_generation(self) -> list[Candidate]:
        """The trials that an earlier driver left under way, filled up by new ones unless their generation was complete; none, and
        the reason in `_end`, when the study is at its end."""
        check_failures(self._study)
        with self._ownership.transaction():
            generation = [self._take_up(trial) for trial in take_up(self._study)]
            if any(candidate.outcome for candidate in generation):
                return generation
            total = len(self._ours())
            end = reached_end(self._study, self._search, self._ownership.seconds)
            while not end and total < self._search.trials and (not generation or total % self._search.generation):
                self._study.sampler = self._sampler()
                reason = ends(self._study.sampler, self._study)
                if reason:
                    end = space_is_used_up(self._study, total, reason)
                    break
                generation.append(self._configure(ask(self._study)))
                total += 1
        self._end = None if generation else end
        return generation

    def _ours(self) -> list[int]:
        """The numbers of the search's own trials, ascending: those that others added to the study are not counted."""
        return [trial.number for trial in self._study.get_trials(deepcopy=False) if is_ours(trial)]

    def _first_name(self, number: int) -> FirstTrial | None:
        """The name of the first trial that has this number; None of those that are drawn."""
        place = bisect_left(self._ours(), number)
        return self._first[place] if place < len(self._first) else None

    def _sampler(self, number: int | None = None) -> optuna.samplers.BaseSampler:
        """For the trial of this number; None: for the next that is asked for."""
        search, ours = self._search, self._ours()
        number = len(self._study.get_trials(deepcopy=False)) if number is None else number
        if name := self._first_name(number):
            parameters = self._space.parameters()
            return fixed_sampler(expressed(self._first_config(name), parameters), parameters)
        first = ours[len(self._first)] if len(ours) > len(self._first) else number
        return make_sampler(search.sampler, self._space, search.seed, number, search.epochs, first)

    def _first_config(self, name: FirstTrial) -> TrialConfig:
        views = self._search.views or Views(policy=self._caches.augmented)
        config = first_config(name, views, self._search.epochs)
        return config.model_copy(update={"views": self._caches.drawn(config.views)})

    def _take_up(self, left: optuna.trial.FrozenTrial) -> Candidate:
        import optuna

        self._study.sampler = self._sampler(left.number)
        if "config" not in left.user_attrs:
            return self._configure(ask_again(self._study, left._trial_id))
        trial = optuna.trial.Trial(self._study, left._trial_id)
        config = TrialConfig.model_validate(json.loads(left.user_attrs["config"]))
        reported = len(left.intermediate_values)
        first = left.user_attrs.get(ATTRIBUTE)
        return Candidate(trial, config, first, outcome=left.user_attrs.get("outcome"), reported=reported)

    def _configure(self, trial: optuna.Trial) -> Candidate:
        if name := self._first_name(trial.number):
            return self._configure_first(trial, name)
        config = self._space.suggest(trial, self._caches.open_views, self._search.epochs, 0)
        given = allotment(self._study._storage.get_trial(trial._trial_id))
        seed = self._seed(given.origin if given else trial.number)
        epochs = given.epochs if given else self._search.epochs
        return self._configured(trial, config.model_copy(update={"seed": seed, "epochs": epochs}))

    def _configure_first(self, trial: optuna.Trial, name: FirstTrial) -> Candidate:
        config, parameters = self._first_config(name), self._space.parameters()
        known = expressed(config, parameters)
        for parameter in parameters:
            if parameter.name in known:
                parameter.draw(trial)
        trial.set_user_attr(ATTRIBUTE, name)
        return self._configured(trial, config.model_copy(update={"seed": self._seed(trial.number)}), name)

    def _configured(self, trial: optuna.Trial, config: TrialConfig, first: FirstTrial | None = None) -> Candidate:
        """Writes down what the trial is trained with; with that, it is asked for."""
        views = self._caches.drawn(config.views)
        config = config.model_copy(update={"views": views})
        trial.set_user_attr("cache", self._caches.of(views).key)
        trial.set_user_attr("config", config.model_dump_json())
        return Candidate(trial, config, first)

    def _seed(self, origin: int) -> int:
        return int(np.random.SeedSequence([self._search.seed, origin]).generate_state(1)[0])

    def _progress(self) -> Progress:
        """Shows the search's progress, from how the study stands now."""
        finished = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]
        states = [trial.state.name for trial in finished if is_ours(trial)]
        best = None
        if complete := ranking(self._study, self._search.objective):
            leader = TrialConfig.model_validate(json.loads(complete[0].user_attrs["config"]))
            val_loss = complete[0].user_attrs.get(VAL_LOSS, math.inf)
            best = Best(complete[0].number, complete[0].value or 0.0, short(leader), val_loss)
        counts = {state: states.count(state) for state in states}
        return Progress(log, Standing(self._run.name, self._search.objective, self._search.trials, counts, best))

    def _train(self, executor: Executor, generation: list[Candidate], progress: Progress) -> None:
        """Trains a generation rung by rung; gives every candidate its outcome, recorded before any trial is told."""

        def show() -> None:
            progress.update([candidate.row(self._search.objective) for candidate in generation])

        show()
        for until in (*self._pruner.rungs(), self._search.epochs):
            alive = [candidate for candidate in generation if candidate.outcome is None]
            pieces = self._pieces(alive, until)
            tasks = [self._task(piece, until) for piece in pieces]
            for number, trained in self._run_tasks(executor, tasks):
                for candidate, progressed in zip(pieces[number], trained, strict=True):
                    candidate.take(progressed)
                show()
            with self._ownership.transaction():
                for candidate in alive:
                    self._report(candidate)
            trials = self._study.get_trials(deepcopy=False)
            for candidate in alive:
                self._judge(candidate, until, trials)
            self._log.append([work for piece in pieces if (work := self._work(piece))])
            show()
        self._record([candidate for candidate in generation if candidate.progressed is not None])

    def _pieces(self, alive: list[Candidate], until: int) -> list[list[Candidate]]:
        """What goes into a task: as many trials of one structure as train side by side, that stop at the same epoch."""
        if self._search.hypermodel is not None:
            return [[candidate] for candidate in alive]
        probes = [candidate for candidate in alive if candidate.config.is_probe]
        heads = [candidate for candidate in alive if not candidate.config.is_probe]
        pieces, own = [[candidate] for candidate in probes], self._caches.own  # first: a probe takes longest
        for stop in sorted({min(until, candidate.config.epochs) for candidate in heads}):
            group = [candidate for candidate in heads if min(until, candidate.config.epochs) == stop]
            configs = [candidate.config for candidate in group]
            found = chunks(configs, self._lanes, self._caches.width_of, len(own.class_names))
            pieces += [[group[place] for place in piece] for piece in found]
        return pieces

    def _run_tasks(self, executor: Executor, tasks: list[Task]) -> Iterator[tuple[int, list[Progressed]]]:
        if self._search.hypermodel is None:
            return executor.map(train_trials, tasks, give_up)
        wrapped = [HypermodelTask(task, Path.cwd()) for task in tasks]
        return executor.map(train_hypermodel, wrapped, lambda given, reason: give_up(given.task, reason))

    def _task(self, candidates: list[Candidate], until: int) -> Task:
        return Task(
            tuple(candidate.config for candidate in candidates),
            tuple(candidate.state for candidate in candidates),
            self._caches.sources,
            make_folder(self._run.workdir / ".jax").resolve(),
            min(until, candidates[0].config.epochs),
            self._search.objective,
            self._search.seed,
            self._lanes,
        )

    def _work(self, piece: list[Candidate]) -> Work | None:
        """The log's row of a task that was judged; None of one that no worker got through."""
        trained = [candidate.progressed for candidate in piece if candidate.progressed is not None]
        stints = [each.stint for each in trained if each.stint is not None]
        if not stints:
            return None
        seconds = round(sum(each.result.seconds for each in trained), 3)
        ended = sum(candidate.outcome is not None for candidate in piece)
        counts = (len(piece), ended, sum(stint.epochs for stint in stints))
        began = round(stints[0].started, 3)
        return Work(self._log.session, self._log.workers, stints[0].worker, began, seconds, *counts)

    def _report(self, candidate: Candidate) -> None:
        """Puts the values of the epochs that are new into the storage."""
        assert candidate.progressed is not None
        for epoch, value in candidate.reports(self._search.epochs, self._search.objective):
            candidate.trial.report(value, epoch)
        candidate.reported = max(candidate.reported, len(candidate.progressed.result.curves))

    def _judge(self, candidate: Candidate, until: int, trials: list[optuna.trial.FrozenTrial]) -> None:
        """Asks the pruner about a trial whose values are reported; sets the outcome of one that ends here."""
        assert candidate.progressed is not None
        candidate.outcome = final_outcome(candidate.progressed.result, candidate.config.epochs, self._search.objective)
        # The first trials are to be among those that ran to their end.
        if candidate.outcome is not None or candidate.first:
            return
        maximize = self._search.objective != "val_loss"
        if is_pruned(self._pruner, trials, candidate.trial.number, until, maximize):
            candidate.outcome = {"state": "PRUNED"}

    def _record(self, candidates: list[Candidate]) -> None:
        """Writes the trials' files, then their outcomes; weights only of those that are among the best so far."""
        kept = self._kept(candidates)
        for candidate in candidates:
            assert candidate.progressed is not None
            result, number = candidate.progressed.result, candidate.trial.number
            for doubt in result.doubts:
                log.print(f"Trial {number}: {doubt}", style="yellow")
            shown = result if number in kept else result._replace(weights={})
            write_trial(self._run.workdir, number, candidate.config, shown)
        ended = [candidate.ended() for candidate in candidates]
        draw_pictures(self._run.workdir, self._run.name, self._search.objective, ended)
        with self._ownership.transaction():
            write_reviews(self._study, self._search.objective, ended)
            for candidate in candidates:
                assert candidate.progressed is not None
                result, trial = candidate.progressed.result, candidate.trial
                if candidate.progressed.config:
                    trial.set_user_attr("config", candidate.config.model_dump_json())
                if result.best_epoch:
                    best = result.curves[result.best_epoch - 1]
                    trial.set_user_attr("best_epoch", result.best_epoch)
                    trial.set_user_attr("top5", best.val_top5_accuracy)
                    trial.set_user_attr(VAL_LOSS, best.val_loss)
                if result.failure:
                    trial.set_user_attr("reason", result.failure)
                if result.doubts:
                    trial.set_user_attr("doubts", list(result.doubts))
                trial.set_user_attr("outcome", candidate.outcome)

    def _kept(self, candidates: list[Candidate]) -> set[int]:
        """The numbers of the trials whose weights stay: the best of those that are told and of these."""
        objective = self._search.objective
        told = [(Score.of_trial(objective, trial), trial.number) for trial in ranking(self._study, objective)]
        ended = [
            (Score.of(objective, candidate.outcome["value"], candidate.outcome[VAL_LOSS]), candidate.trial.number)
            for candidate in candidates
            if candidate.outcome and "value" in candidate.outcome
        ]
        return {number for _, number in sorted(told + ended)[: self._search.keep]}

    def _tell(self, generation: list[Candidate]) -> None:
        """Tells the outcomes in the order of the numbers, then drops the weights of trials that are not among the best."""
        import optuna

        with self._ownership.transaction():
            for candidate in generation:
                assert candidate.outcome is not None
                state = optuna.trial.TrialState[candidate.outcome["state"]]
                self._study.tell(candidate.trial, candidate.outcome.get("value"), state=state)
        complete = ranking(self._study, self._search.objective)
        if complete:
            keep_weights(self._run.workdir, [trial.number for trial in complete[: self._search.keep]])


def open_space(run: SearchRun) -> Space:
    """Where the run's trials come from: its space, or its hypermodel in the working directory or an installed package."""
    function = run.search.hypermodel
    if function is None:
        return resolved_space(run)
    return HypermodelSpace(function, Path.cwd(), run.search.hypermodel_values)


def environment(run: SearchRun) -> dict[str, str]:
    """What Keras and JAX need to know before they are imported, here and in workers."""
    backend = {"KERAS_BACKEND": "jax", "JAX_THREEFRY_PARTITIONABLE": "1"}
    return backend if run.search.workers.gpus else {**backend, "JAX_PLATFORMS": "cpu"}


def show_size(size: float) -> str:
    """The size of a search space as text."""
    return "infinite: it has continuous ranges" if math.isinf(size) else f"{size:,.0f}"
