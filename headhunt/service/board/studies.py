"""Summaries of the studies in the storage; trials stay in memory only while a job works on them."""

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
from search.ranking import is_external, ranked
from search.review.progress import STATES

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

PACE_MINUTES = 5
"""Window of the trials per minute; shorter if the job began later."""

POINTS = 400

AT_WORK = ("running", "stopping")
"""States of a job that can change a study."""

LONGEST_TOP = 1000
"""Maximum number of trials in a leaderboard."""


class HistoryPoint(NamedTuple):
    """The value of a completed trial, and the best value so far."""

    number: int
    value: float
    best: float


class Study(NamedTuple):
    """Summary of a study. `rows` is the leaderboard (LONGEST_TOP at most), each row JSON of `TopTrial`; `history` is JSON of
    `History`. Both are serialised when a trial completes, not per request, and hold no trial objects."""

    objective: str
    history: bytes
    counts: TrialCounts
    id: int | None = None
    per_minute: float | None = None
    best: Best | None = None
    rows: tuple[bytes, ...] = ()
    complete: array[int] = array("I")
    """Numbers of the completed trials, best first."""
    settled: tuple[int, str | None] | None = None
    """Number and end time of the last job, if the study was read after it ended; until a new job starts, the study is settled."""
    fault: str | None = None
    """Why the study could not be read."""


class Studies:
    """The studies in the storage. Only for threads that may block while the storage hangs; `read` runs one call at a time."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._at_work: dict[str, optuna.Study] = {}
        self._reading = threading.Lock()
        self.answered: float | None = None
        """When the storage last answered, on the monotonic clock; None after an error."""

    def ask(self) -> None:
        """Checks that the storage answers; raises the storage's own error otherwise."""
        try:
            self._storage.get_study_id_from_name(" ")  # any query will do: no study has this name
        except KeyError:
            self.answered = time.monotonic()
        except Exception:
            self.answered = None
            raise

    def read(self, run: Run, before: Study, last: JobSnapshot) -> Study:
        """The summary of a study. Read while a job works on it and once afterwards; then its trials are released."""
        with self._reading:
            return self._read(run, before, last)

    def _read(self, run: Run, before: Study, last: JobSnapshot) -> Study:
        import optuna
        from sqlalchemy.exc import SQLAlchemyError

        settled = settled_key(last)
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
        states = Counter(trial.state.name for trial in trials if not is_external(trial))
        counts = {word: states[state] for state, word in STATES.items()}
        total = max(run.search.trials, len(trials))
        found = before._replace(
            objective=run.search.objective,
            id=study_id(study),
            counts=TrialCounts(total=total, **counts, added=sum(map(is_external, trials))),
            per_minute=_pace(trials, last.begun) if last.state == "running" and last.stage == "search" else None,
            settled=settled,
        )
        complete = ranked(trials, run.search.objective)
        if before.id == found.id and len(before.complete) == len(complete):
            return found  # completed trials never change
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


def settled_key(last: JobSnapshot) -> tuple[int, str | None] | None:
    """The `Study.settled` of a study that is read while this is the search's last job."""
    return None if last.state in AT_WORK else (last.job.number, last.ended)


def no_study(objective: str, trials: int) -> Study:
    """The summary of a search without a study; `trials` is the configured number."""
    nothing = History(objective=objective, points=[]).model_dump_json().encode()
    return Study(objective, nothing, TrialCounts(total=trials))


def thinned(points: tuple[HistoryPoint, ...]) -> list[HistoryPoint]:
    """Every improvement, plus about POINTS evenly spaced points."""
    if len(points) <= POINTS:
        return list(points)
    better = {point.number for before, point in pairwise(points) if point.best != before.best}
    step = -(-len(points) // POINTS)
    kept = {points[position].number for position in range(0, len(points), step)} | {points[0].number, points[-1].number}
    return [point for point in points if point.number in kept | better]


def _number(value: Any) -> float | None:
    """The value if it is a number: anybody can edit user attributes in the dashboard."""
    return float(value) if isinstance(value, int | float) else None


def _pace(trials: list[Any], begun: str | None) -> float | None:
    """Trials ended per minute, recently."""
    now = datetime.now()  # Optuna's times are local ones
    since = now - timedelta(minutes=PACE_MINUTES)
    if begun:
        since = max(since, datetime.fromisoformat(begun).astimezone().replace(tzinfo=None))
    ended = sum(trial.datetime_complete is not None and trial.datetime_complete > since for trial in trials)
    minutes = (now - since).total_seconds() / 60
    return round(ended / minutes, 2) if ended and minutes > 0 else None


def _history(complete: Sequence[optuna.trial.FrozenTrial], objective: Metric) -> bytes:
    """JSON of `History`."""
    reached: list[HistoryPoint] = []
    for trial in sorted(complete, key=lambda one: one.number):
        value = trial.value or 0.0
        reached.append(
            HistoryPoint(trial.number, value, best_of(objective, (reached[-1].best, value)) if reached else value)
        )
    points = [Point(**one._asdict()) for one in thinned(tuple(reached))]
    return History(objective=objective, points=points).model_dump_json().encode()
