"""The driver of a study: it asks, runs, reports, prunes and tells; workers never touch the storage.

Trials run in generations of a fixed size: all are asked for, trained rung by rung on the workers (those of one structure
together), and judged in order of their numbers once the whole generation has reached a rung. So the history, and with it every
later ask, is the same with one worker or sixteen, and a killed study resumes as if it had never been interrupted.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic

import numpy as np

from features.runtime.log import log
from features.runtime.workers.executors import Executor, open_executor
from search.candidate import C, Candidate, Outcome
from search.config import SearchConfig
from search.driver.objective import Objective
from search.driver.ownership import Ownership
from search.driver.set_aside import ask, take_up, under_way
from search.driver.stopping import End, check_failures, reached_end, space_is_used_up
from search.driver.worklog import Work, WorkLog
from search.first_trials import ATTRIBUTE, FirstTrial, first_of, fixed_sampler
from search.optuna_internals import storage_of, trial_id, trial_of
from search.pruners.choice import is_pruned, make_pruner
from search.ranking import VAL_LOSS, Score, is_from_search, ranking
from search.review.notes import draw_pictures, write_reviews
from search.review.progress import Best, Progress, Row, SearchSnapshot
from search.samplers.choice import exhausted, make_sampler, redraw
from search.samplers.oracles import allotment, hyperband_trials

if TYPE_CHECKING:
    import optuna


class Driver(Generic[C]):
    """Runs generations of trials of an objective, from ask to tell."""

    def __init__(
        self, workdir: Path, search: SearchConfig, study: optuna.Study, objective: Objective[C], ownership: Ownership
    ) -> None:
        self._workdir = workdir
        self._search = search
        self._study = study
        self._objective = objective
        self._ownership = ownership
        self._pruner = make_pruner(search.pruner, search.epochs)
        at_a_time = search.workers.count if objective.threads or search.workers.executor != "local" else 1
        self._first = first_of(study)
        self._log = WorkLog(workdir, at_a_time, goes_on=bool(study.get_trials(deepcopy=False)))
        self._end: End | None = None

    def drive(self) -> End:
        """Runs until the study ends; returns why it ended."""
        if end := self._reached_end():
            return end
        if self._search.sampler == "keras_tuner.hyperband":
            needed = hyperband_trials(self._search.epochs)
            log.print(f"KerasTuner's Hyperband: one round of all brackets takes {needed} trials, then it starts over.")
        objective = self._objective
        with (  # no trial is asked for before the executor is ready to train it
            open_executor(self._search.workers, self._workdir, objective.environment, objective.threads) as executor,
            self._progress() as progress,
        ):
            while generation := self._next_generation():
                self._train(executor, generation, progress)
                self._tell(generation)
                progress.told()
        assert self._end is not None
        return self._end

    def _reached_end(self) -> End | None:
        """Why the study has ended, without asking for a trial; None while trials are under way or left to ask for."""
        check_failures(self._study)
        if under_way(self._study):
            return None
        if end := reached_end(self._study, self._search, self._ownership.seconds):
            return end
        reason = exhausted(self._sampler(), self._study)
        return space_is_used_up(self._study, len(self._ours()), reason) if reason else None

    # Asking

    def _next_generation(self) -> list[Candidate[C]]:
        """The trials that an earlier driver left under way, filled up with new ones unless their generation was complete. Empty
        when the study has ended; `_end` then holds the reason."""
        check_failures(self._study)
        with self._ownership.transaction():
            generation = [self._take_up(trial) for trial in take_up(self._study)]
            if any(candidate.outcome for candidate in generation):
                return generation
            total = len(self._ours())
            end = reached_end(self._study, self._search, self._ownership.seconds)
            while not end and total < self._search.trials and (not generation or total % self._search.generation):
                self._study.sampler = self._sampler()
                reason = exhausted(self._study.sampler, self._study)
                if reason:
                    end = space_is_used_up(self._study, total, reason)
                    break
                generation.append(self._configure(ask(self._study)))
                total += 1
        self._end = None if generation else end
        return generation

    def _ours(self) -> list[int]:
        """The numbers of the search's own trials, ascending, without those added to the study from outside."""
        return [trial.number for trial in self._study.get_trials(deepcopy=False) if is_from_search(trial)]

    def _first_name(self, number: int) -> FirstTrial | None:
        """The name of the first trial with this number; None for drawn trials."""
        place = bisect_left(self._ours(), number)
        return self._first[place] if place < len(self._first) else None

    def _sampler(self, number: int | None = None) -> optuna.samplers.BaseSampler:
        """The sampler for the trial of this number, by default for the next trial."""
        search, space, ours = self._search, self._objective.space, self._ours()
        number = len(self._study.get_trials(deepcopy=False)) if number is None else number
        if name := self._first_name(number):
            _, values = self._objective.first(name)
            return fixed_sampler(values, space.parameters())
        first = ours[len(self._first)] if len(ours) > len(self._first) else number
        return make_sampler(search.sampler, space, search.seed, number, search.epochs, first)

    def _take_up(self, left: optuna.trial.FrozenTrial) -> Candidate[C]:
        self._study.sampler = self._sampler(left.number)
        if "config" not in left.user_attrs:
            return self._configure(redraw(self._study, left))
        trial = trial_of(self._study, left)
        config = self._objective.parse(left.user_attrs["config"])
        known = left.user_attrs.get("outcome")
        outcome = None if known is None else Outcome.parse(known)
        first = left.user_attrs.get(ATTRIBUTE)
        return Candidate(trial, config, first, outcome=outcome, reported=len(left.intermediate_values))

    def _configure(self, trial: optuna.Trial) -> Candidate[C]:
        if name := self._first_name(trial.number):
            return self._configure_first(trial, name)
        config = self._objective.suggest(trial)
        given = allotment(storage_of(self._study).get_trial(trial_id(trial)))
        seed = self._seed(given.origin if given else trial.number)
        epochs = given.epochs if given else self._search.epochs
        return self._configured(trial, config.model_copy(update={"seed": seed, "epochs": epochs}))

    def _configure_first(self, trial: optuna.Trial, name: FirstTrial) -> Candidate[C]:
        config, values = self._objective.first(name)
        for parameter in self._objective.space.parameters():
            if parameter.name in values:
                parameter.draw(trial)
        trial.set_user_attr(ATTRIBUTE, name)
        return self._configured(trial, config.model_copy(update={"seed": self._seed(trial.number)}), name)

    def _configured(self, trial: optuna.Trial, config: C, first: FirstTrial | None = None) -> Candidate[C]:
        """Stores what the trial is trained with, which completes its ask."""
        config, attributes = self._objective.complete(config)
        for name, value in attributes.items():
            trial.set_user_attr(name, value)
        trial.set_user_attr("config", config.model_dump_json())
        return Candidate(trial, config, first)

    def _seed(self, origin: int) -> int:
        return int(np.random.SeedSequence([self._search.seed, origin]).generate_state(1)[0])

    # Running, reporting, pruning

    def _train(self, executor: Executor, generation: list[Candidate[C]], progress: Progress) -> None:
        """Trains a generation rung by rung; sets every candidate's outcome, which is recorded before any trial is told."""

        def show() -> None:
            progress.update([self._row(candidate) for candidate in generation])

        show()
        for until in (*self._pruner.rungs(), self._search.epochs):
            alive = [candidate for candidate in generation if candidate.outcome is None]
            places = self._objective.pieces([candidate.config for candidate in alive], until)
            pieces = [[alive[place] for place in piece] for piece in places]
            given = [[(candidate.config, candidate.state) for candidate in piece] for piece in pieces]
            for number, results in self._objective.train(executor, given, until):
                for candidate, result in zip(pieces[number], results, strict=True):
                    candidate.take(result)
                show()
            with self._ownership.transaction():
                for candidate in alive:
                    self._report(candidate)
            trials = self._study.get_trials(deepcopy=False)
            for candidate in alive:
                self._judge(candidate, until, trials)
            self._log.append([work for piece in pieces if (work := self._work(piece))])
            show()
        self._record([candidate for candidate in generation if candidate.result is not None])

    def _work(self, piece: Sequence[Candidate[C]]) -> Work | None:
        """The work log's row for a judged task; None if no worker completed it."""
        trained = [candidate.trained for candidate in piece]
        spans = [result.span for result in trained if result.span is not None]
        if not spans:
            return None
        seconds = round(sum(result.seconds for result in trained), 3)
        ended = sum(candidate.outcome is not None for candidate in piece)
        counts = (len(piece), ended, sum(span.epochs for span in spans))
        began = round(spans[0].started, 3)
        return Work(self._log.session, self._log.workers, spans[0].worker, began, seconds, *counts)

    def _report(self, candidate: Candidate[C]) -> None:
        """Reports the values of new epochs to the storage."""
        curves = candidate.trained.curves
        for metrics in curves[candidate.reported :]:
            step = self._objective.step_of(candidate.config, metrics.epoch)
            candidate.trial.report(getattr(metrics, self._objective.metric), step)
        candidate.reported = max(candidate.reported, len(curves))

    def _judge(self, candidate: Candidate[C], until: int, trials: list[optuna.trial.FrozenTrial]) -> None:
        """Sets the outcome of a trial that ends at this rung: failed, completed or pruned. Its values must be reported."""
        metric = self._objective.metric
        candidate.outcome = Outcome.of(candidate.trained, candidate.config.epochs, metric)
        # First trials are never pruned: they must be among the completed ones.
        if candidate.outcome is not None or candidate.first:
            return
        if is_pruned(self._pruner, trials, candidate.number, until, metric):
            candidate.outcome = Outcome("PRUNED")

    # Recording, telling

    def _record(self, candidates: list[Candidate[C]]) -> None:
        """Writes the trials' files, then their outcomes; weights only for those among the best so far."""
        kept = self._kept(candidates)
        for candidate in candidates:
            result, number = candidate.trained, candidate.number
            for doubt in result.doubts:
                log.print(f"Trial {number}: {doubt}", style="yellow")
            shown = result if number in kept else result._replace(weights={})
            self._objective.write(number, candidate.config, shown)
        draw_pictures(self._workdir, self._study.study_name, self._objective.metric, candidates)
        with self._ownership.transaction():
            write_reviews(self._study, self._objective.metric, candidates, self._objective.describe)
            for candidate in candidates:
                self._write_down(candidate)

    def _write_down(self, candidate: Candidate[C]) -> None:
        """Stores the attributes of a finished trial; the outcome comes last and marks them as complete."""
        assert candidate.outcome is not None
        result, trial = candidate.trained, candidate.trial
        if result.config:
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
        trial.set_user_attr("outcome", candidate.outcome.plain())

    def _kept(self, candidates: list[Candidate[C]]) -> set[int]:
        """The numbers of the trials whose weights stay: the best among told trials and these candidates."""
        metric = self._objective.metric
        told = [(Score.of_trial(metric, trial), trial.number) for trial in ranking(self._study, metric)]
        ended = [
            (Score.of(metric, candidate.outcome.value, candidate.outcome.val_loss), candidate.number)
            for candidate in candidates
            if candidate.outcome and candidate.outcome.value is not None
        ]
        return {number for _, number in sorted(told + ended)[: self._search.keep]}

    def _tell(self, generation: list[Candidate[C]]) -> None:
        """Tells the outcomes in order of trial number, then deletes the weights of trials that are not among the best."""
        import optuna

        with self._ownership.transaction():
            for candidate in generation:
                assert candidate.outcome is not None
                state = optuna.trial.TrialState[candidate.outcome.state]
                self._study.tell(candidate.trial, candidate.outcome.value, state=state)
        complete = ranking(self._study, self._objective.metric)
        if complete:
            self._objective.keep_weights([trial.number for trial in complete[: self._search.keep]])

    # Showing

    def _progress(self) -> Progress:
        """The progress display, starting from the study's current state."""
        finished = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]
        states = [trial.state.name for trial in finished if is_from_search(trial)]
        best = None
        if complete := ranking(self._study, self._objective.metric):
            leader = self._objective.describe(self._objective.parse(complete[0].user_attrs["config"]))
            val_loss = complete[0].user_attrs.get(VAL_LOSS, math.inf)
            best = Best(complete[0].number, complete[0].value or 0.0, leader.short, val_loss)
        counts = {state: states.count(state) for state in states}
        name, total = self._study.study_name, self._search.trials
        return Progress(log, SearchSnapshot(name, self._objective.metric, total, counts, best))

    def _row(self, candidate: Candidate[C]) -> Row:
        """A trial's row in the progress table."""
        outcome, number = candidate.outcome, candidate.number
        words = self._objective.describe(candidate.config).short
        if outcome is None and candidate.result is not None:
            outcome = Outcome.of(candidate.result, candidate.config.epochs, self._objective.metric)
        if outcome is None:
            return Row(number, "RUNNING", None, words)
        return Row(number, outcome.state, outcome.value, words, candidate.result is not None, outcome.val_loss)
