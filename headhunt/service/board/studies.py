"""What the storage holds of each search, as the answers made of it; trials are kept only while a job is at work on them."""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from headhunt.service.board.schemas import Best, History, Point, TopTrial, TrialCounts
from headhunt.service.jobs.jobs import JobSnapshot
from reports.config import Run
from search.metric import Metric, best_of
from search.optuna_internals import study_id
from search.ranking import is_added, is_ours, ranked
from search.review.progress import STATES

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

PACE_MINUTES = 5
"""Trials a minute are those of so many minutes, or of the job where that is younger."""

POINTS = 400

AT_WORK = ("running", "stopping")
"""States of a job that may change a study."""

LONGEST_TOP = 1000
"""Trials of a leaderboard that are told at most."""


class Reached(NamedTuple):
    """The value of a trial that ran to its end, and the best one up to it."""

    number: int
    value: float
    best: float


class Study(NamedTuple):
    """What a look at a study gave. `rows` are the leaderboard, as far as it is told, as JSON of `TopTrial`; `history` is JSON of
    `History`: both are written when a trial is complete, however often they are asked for, and no trial is kept."""

    objective: str
    history: bytes
    counts: TrialCounts
    id: int | None = None
    per_minute: float | None = None
    best: Best | None = None
    rows: tuple[bytes, ...] = ()
    complete: array[int] = array("I")
    """The numbers of the trials that ran to their end, the best first."""
    settled: tuple[int, str | None] | None = None
    """The job that was the last one, and its end, if it was read after that: until there is another one, it stays as it is."""
    fault: str | None = None
    """Why it could not be read."""


class Studies:
    """The studies of the storage. For threads that may wait as long as it is silent; `read` lets in one at a time."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._at_work: dict[str, optuna.Study] = {}
        self._reading = threading.Lock()
        self.answered: float | None = None
        """When the storage last answered, by the monotonic clock; None when it said that it cannot."""

    def ask(self) -> None:
        """Asks the storage whether it answers; what it raises, when it does not."""
        try:
            self._storage.get_study_id_from_name(" ")  # any question will do: there is no such study
        except KeyError:
            self.answered = time.monotonic()
        except Exception:
            self.answered = None
            raise

    def read(self, run: Run, before: Study, last: JobSnapshot) -> Study:
        """How a study stands. It is read while a job is at work on it and once after that; then its trials are let go of."""
        with self._reading:
            return self._read(run, before, last)

    def _read(self, run: Run, before: Study, last: JobSnapshot) -> Study:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        settled = settlement(last)
        try:
            has_changed = settled is None or (last.state != "queued" and settled != before.settled)
            if not has_changed and before.id == self._storage.get_study_id_from_name(run.name):
                return before
            if run.name not in self._at_work:
                self._at_work[run.name] = optuna.load_study(study_name=run.name, storage=self._storage)
            study = self._at_work[run.name]
            trials = study.get_trials(deepcopy=False)
            if settled:
                del self._at_work[run.name]  # and with it Optuna's copy of its trials
        except KeyError:
            self._at_work.pop(run.name, None)
            return no_study(run.search.objective, run.search.trials)._replace(settled=settled)
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError):
            self.answered = None
            return before
        self.answered = time.monotonic()
        states = Counter(trial.state.name for trial in trials if not is_added(trial))
        counts = {word: states[state] for state, word in STATES.items()}
        total = max(run.search.trials, len(trials))
        found = before._replace(
            objective=run.search.objective,
            id=study_id(study),
            counts=TrialCounts(total=total, **counts, added=sum(map(is_added, trials))),
            per_minute=_pace(trials, last.begun) if last.state == "running" and last.stage == "search" else None,
            settled=settled,
        )
        complete = ranked(filter(is_ours, trials), run.search.objective)
        if before.id == found.id and len(before.complete) == len(complete):
            return found  # none of those that are complete changes any more
        rows = [
            TopTrial(
                number=one.number, value=one.value or 0.0, top5=_number(one.user_attrs.get("top5")), params=one.params
            )
            for one in complete[:LONGEST_TOP]
        ]
        best = Best(number=rows[0].number, value=rows[0].value, params=rows[0].params) if rows else None
        history = _history(complete, run.search.objective)
        return found._replace(
            best=best,
            rows=tuple(row.model_dump_json().encode() for row in rows),
            complete=array("I", [trial.number for trial in complete]),
            history=history,
        )


def settlement(last: JobSnapshot) -> tuple[int, str | None] | None:
    """`Study.settled` of one that is read while this is the search's last job."""
    return None if last.state in AT_WORK else (last.job.number, last.ended)


def no_study(objective: str, trials: int) -> Study:
    """What is told of a search whose study there is not, yet or any more; it asks for so many trials."""
    nothing = History(objective=objective, points=[]).model_dump_json().encode()
    return Study(objective, nothing, TrialCounts(total=trials))


def thinned(points: tuple[Reached, ...]) -> list[Reached]:
    """Every improvement, and of the others as many as POINTS leaves room for, evenly."""
    if len(points) <= POINTS:
        return list(points)
    better = {point.number for before, point in pairwise(points) if point.best != before.best}
    step = -(-len(points) // POINTS)
    kept = {points[position].number for position in range(0, len(points), step)} | {points[0].number, points[-1].number}
    return [point for point in points if point.number in kept | better]


def _number(value: Any) -> float | None:
    """What anybody may have written to a trial in the dashboard, where it is a number."""
    return float(value) if isinstance(value, int | float) else None


def _pace(trials: list[Any], begun: str | None) -> float | None:
    """Trials that ended in a minute, lately."""
    now = datetime.now()  # Optuna's times are local ones
    since = now - timedelta(minutes=PACE_MINUTES)
    if begun:
        since = max(since, datetime.fromisoformat(begun).astimezone().replace(tzinfo=None))
    ended = sum(trial.datetime_complete is not None and trial.datetime_complete > since for trial in trials)
    minutes = (now - since).total_seconds() / 60
    return round(ended / minutes, 2) if ended and minutes > 0 else None


def _history(complete: Sequence[optuna.trial.FrozenTrial], objective: Metric) -> bytes:
    """JSON of `History`."""
    reached: list[Reached] = []
    for trial in sorted(complete, key=lambda one: one.number):
        value = trial.value or 0.0
        reached.append(
            Reached(trial.number, value, best_of(objective, (reached[-1].best, value)) if reached else value)
        )
    points = [Point(**one._asdict()) for one in thinned(tuple(reached))]
    return History(objective=objective, points=points).model_dump_json().encode()
