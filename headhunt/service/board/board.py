"""The status of every search, kept up to date by threads so that requests do not wait for the storage, Ray or the disk."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from features.run_file import load
from features.runtime.errors import HeadhuntError, LostError
from headhunt.service.board.schemas import Exported, Exports, Health, JobStatus, Promotion, Promotions, SearchStatus
from headhunt.service.board.studies import Studies, Study, no_study, settled_key
from headhunt.service.jobs.admission import contained
from headhunt.service.jobs.downloads import exported_formats, report_page
from headhunt.service.jobs.jobs import Jobs, JobSnapshot
from headhunt.service.jobs.once_per_problem import OncePerProblemLog
from headhunt.service.jobs.records import ACTIVE, CONFIGURATION, job_files
from reports.config import Run
from train.promotion.artifact import find_promotions

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

LOOK_SECONDS = 1.0
"""Interval at which the threads check active jobs and searches."""

LONGEST_PAUSE = 10.0
"""Upper limit of the pause between two checks, which is four times the duration of a check."""

REST_SECONDS = 30.0
"""Interval for inactive searches, whose studies change only through a dashboard."""

UNANSWERED_SECONDS = 20
"""Ray and the storage are considered unreachable after this long without an answer."""

PATIENCE_SECONDS = 5
"""Maximum time that a request waits for the storage."""


class Entry(NamedTuple):
    """The last known state of a search, and its status as JSON."""

    status: SearchStatus
    study: Study
    json: bytes


class Board:
    """The searches below `root`. `start` starts the threads, `end` stops them."""

    def __init__(
        self, root: Path, jobs: Jobs, storage: BaseStorage, version: str, keep_ray: Callable[[], None] | None = None
    ) -> None:
        """`keep_ray` restarts Ray if it has died."""
        self._root, self._jobs, self._version, self._keep_ray = root, jobs, version, keep_ray
        self._entries: dict[str, Entry] = {}
        self._promotions: dict[str, tuple[Entry, bytes]] = {}
        self._seen: dict[str, float] = {}
        self._problems = OncePerProblemLog()
        self._runs: dict[str, Run] = {}
        self._studies = Studies(storage)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._json = b'{"searches":[]}'
        looks = {"jobs": self._update_jobs, "storage": self._ask, "studies": self._look_at_searches}
        # A thread each: if Ray or the storage hangs, the others continue.
        self._threads = [
            threading.Thread(target=self._loop, args=(look,), name=name, daemon=True) for name, look in looks.items()
        ]

    def start(self) -> None:
        """Checks everything once, then starts the threads."""
        self.look()
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stops the threads; one that is stuck waiting for the storage ends with the process."""
        self._ended.set()
        until = time.monotonic() + 10
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def all_json(self) -> bytes:
        """Every search, as JSON of `Searches`."""
        return self._json

    def entry(self, name: str) -> Entry:
        """A search; UnknownError if it does not exist."""
        found = self._entries.get(name)
        if found is None:
            self._jobs.of(name)  # raises UnknownError; a new search may be younger than the last check
            found = self.refresh(name)
        return found

    def entries(self) -> list[Entry]:
        """All searches, newest first."""
        entries = self._entries
        return [entries[name] for name in self._jobs.names() if name in entries]

    def run(self, name: str) -> Run:
        """The configuration of a search."""
        self._jobs.of(name)
        if name not in self._runs:
            self._runs[name] = load(Run, self._root / name / CONFIGURATION)
        return self._runs[name]

    def refresh(self, name: str) -> Entry:
        """A search with the current state of its jobs and the last known state of its study."""
        with self._lock:
            self._update_entry(name, self._last_seen(name))
            self._write()
            return self._entries[name]

    def incomplete(self, name: str, trials: Iterable[int]) -> list[int]:
        """The trials among these that are not complete, sorted. LostError if the storage must be asked and does not answer."""
        wanted = set(trials)
        missing = wanted.difference(self.entry(name).study.complete)
        if missing:
            self.run(name)
            reading = threading.Thread(target=self._look_again, args=(name,), daemon=True)
            if self._storage_answers:
                reading.start()
                reading.join(PATIENCE_SECONDS)
            if reading.is_alive() or not self._storage_answers:
                numbers = ", ".join(map(str, sorted(missing)))
                raise LostError(
                    f"cannot tell whether trials {numbers} of the search {name!r} are complete, because the storage does not "
                    "answer. Retry when /healthz reports the storage as ok."
                )
            missing = wanted.difference(self.entry(name).study.complete)
        return sorted(missing)

    def health(self) -> Health:
        """Whether Ray and the storage answer."""
        ray, storage = _is_recent(self._jobs.ray_answered), self._storage_answers
        return Health(
            status="ok" if ray and storage else "degraded",
            ray="ok" if ray else "unreachable",
            storage="ok" if storage else "unreachable",
            version=self._version,
        )

    def top(self, name: str, limit: int) -> bytes:
        """A search's leaderboard, as JSON of `Top`; `limit` must be at most LONGEST_TOP."""
        return b'{"trials":[' + b",".join(self.entry(name).study.rows[:limit]) + b"]}"

    def history(self, name: str) -> bytes:
        """The values of a search's trials, as JSON of `History`."""
        return self.entry(name).study.history

    def promotions(self, name: str) -> bytes:
        """The finished promotions of a search, as JSON of `Promotions`; reads files."""
        entry, run = self.entry(name), self._with_absolute_workdir(name)
        inside = [each for each in find_promotions(run) if contained(each.folder, self._root)]
        rows = [
            Promotion(**{**dict(each.summary()), "folder": f"{name}/promotions/{each.folder.name}"}) for each in inside
        ]
        told = Promotions(promotions=rows).model_dump_json().encode()
        self._promotions[name] = (entry, told)
        return told

    def known_promotions(self, name: str) -> bytes | None:
        """`promotions` from memory, or None if they were not read since the search's last update."""
        entry, told = self._promotions.get(name, (None, None))
        return told if entry is self.entry(name) else None

    def exports(self, name: str) -> Exports:
        """The exports of a search."""
        self._jobs.of(name)
        folders = [path for path in (self._root / name / "exports").glob("*") if path.name.isdigit()]
        found = [(int(folder.name), exported_formats(folder)) for folder in folders]
        return Exports(exports=[Exported(trial=trial, formats=formats) for trial, formats in sorted(found) if formats])

    def look(self) -> None:
        """Checks the jobs, and every search that is active or due."""
        self._update_jobs()
        self._ask()
        self._look_at_searches()

    @property
    def _storage_answers(self) -> bool:
        return _is_recent(self._studies.answered)

    def _update_jobs(self) -> None:
        with self._log_errors("Ray"):
            if self._keep_ray:
                self._keep_ray()
        with self._log_errors("the jobs"):
            self._jobs.look_after()
        if self._storage_answers:
            self._problems.log("its silence", "")
            return
        if self._studies.answered is not None:
            self._problems.log("its silence", f"the storage has not answered for {UNANSWERED_SECONDS} seconds")
        with self._lock:  # the thread that reads studies may be stuck in the storage; job states must be updated anyway
            for name in self._jobs.names():
                if self._is_moving(name):
                    with self._log_errors(f"the files of the search {name!r}"):
                        self._update_entry(name, self._last_seen(name))
            self._write()

    def _ask(self) -> None:
        with self._log_errors("the storage"):
            self._studies.ask()

    def _look_at_searches(self) -> None:
        for name in self._jobs.names():
            if self._is_due(name):
                with self._log_errors(f"the files of the search {name!r}"):
                    self._look_at(name)
        with self._lock:
            self._write()

    def _loop(self, look: Callable[[], None]) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            with self._log_errors("the searches"):
                look()
            self._ended.wait(min(max(LOOK_SECONDS, 4 * (time.monotonic() - began)), LONGEST_PAUSE))

    @contextmanager
    def _log_errors(self, what: str) -> Iterator[None]:
        """Logs an error in a check of `what` instead of raising it, so that the other checks still run."""
        try:
            yield
        except Exception as error:
            self._problems.log(what, f"cannot check {what}: {_fault(error)}")
        else:
            self._problems.log(what, "")

    def _write(self) -> None:
        parts = b",".join(entry.json for entry in self.entries())
        self._json = b'{"searches":[' + parts + b"]}"

    def _with_absolute_workdir(self, name: str) -> Run:
        """The configuration with an absolute workdir, independent of this process's working directory."""
        return self.run(name).model_copy(update={"workdir": self._root / name})

    def _is_moving(self, name: str) -> bool:
        """Whether a search has an active job, or job states that its entry does not show yet."""
        before = self._entries.get(name)
        return before is None or before.status.state in ACTIVE or _states(before.status) != _of(self._jobs.of(name))

    def _is_due(self, name: str) -> bool:
        if self._is_moving(name) or time.monotonic() - self._seen.get(name, -REST_SECONDS) >= REST_SECONDS:
            return True
        study = self._last_seen(name)
        return not study.fault and study.settled != settled_key(self._jobs.of(name)[-1])

    def _last_seen(self, name: str) -> Study:
        """The last known state of a search's study."""
        found = self._entries.get(name)
        if found:
            return found.study
        try:
            section = self.run(name).search
        except Exception as error:  # e.g. a configuration of another version; its jobs are shown anyway
            return no_study("", 0)._replace(fault=_fault(error))
        return no_study(section.objective, section.trials)

    def _look_at(self, name: str, again: bool = False) -> None:
        """Reads a search's study (`again`: even if it should be unchanged) and updates its entry. May block for long."""
        while True:
            last, study = self._jobs.of(name)[-1], self._last_seen(name)
            try:
                run = self.run(name)
                if self._storage_answers:
                    study = self._studies.read(run, study._replace(settled=None) if again else study, last)
                study = study._replace(fault=None)
            except Exception as error:  # e.g. a study that somebody else wrote to
                study = study._replace(fault=_fault(error))
            with self._lock:
                if self._jobs.of(name)[-1] == last:  # else the job changed meanwhile: read again
                    self._update_entry(name, study)
                    break
        self._seen[name] = time.monotonic()
        about = f"the search {name!r}"
        self._problems.log(about, f"cannot read {about}: {study.fault}" if study.fault else "")

    def _look_again(self, name: str) -> None:
        with self._log_errors(f"the files of the search {name!r}"):
            self._look_at(name, again=True)

    def _update_entry(self, name: str, study: Study) -> None:
        snapshots = self._jobs.of(name)
        shown = _representative_job(snapshots)
        status = SearchStatus(
            name=name,
            state=shown.state,
            stage=shown.stage if shown.state in ACTIVE else None,
            message=shown.message or study.fault,
            objective=study.objective,
            study_id=study.id,
            trials=study.counts,
            trials_per_minute=study.per_minute,
            images_per_second=self._images_per_second(name, snapshots),
            best=study.best,
            created=snapshots[0].job.created,
            jobs=[_job_status(snapshot, self._jobs.submission_id(snapshot.job)) for snapshot in snapshots],
            promotions=len(list((self._root / name).glob("promotions/*/metrics.json"))),
            exports=len(self.exports(name).exports),
            report=report_page(self._root, name) is not None,
        )
        self._entries[name] = Entry(status, study, status.model_dump_json().encode())

    def _images_per_second(self, name: str, snapshots: list[JobSnapshot]) -> float | None:
        """Throughput of a running cache build from its log, or else the result of the latest build."""
        last = snapshots[-1]
        files = job_files(self._root, name, last.job.number)
        if last.state == "running" and last.stage == "cache" and files.log.exists():
            with files.log.open("rb") as file:
                file.seek(max(0, files.log.stat().st_size - 2000))
                said = re.findall(rb"([\d.]+) images/s", file.read())
            if said:
                return float(said[-1])
        for snapshot in reversed(snapshots):
            found = job_files(self._root, name, snapshot.job.number).results().get("cache")
            if found:
                return float(found["images_per_second"])
        return None


def _is_recent(answered: float | None) -> bool:
    return answered is not None and time.monotonic() - answered < UNANSWERED_SECONDS


def _representative_job(snapshots: list[JobSnapshot]) -> JobSnapshot:
    """The job whose state represents the search: the last one, unless that is a finished promotions job: then the last search."""
    last = snapshots[-1]
    if last.job.kind == "promotions" and last.state == "finished":
        return next(snapshot for snapshot in reversed(snapshots) if snapshot.job.kind == "search")
    return last


def _fault(error: Exception) -> str:
    return str(error) if isinstance(error, HeadhuntError) else f"{type(error).__name__}: {error}"


def _states(status: SearchStatus) -> list[tuple[int, str]]:
    return [(job.number, job.state) for job in status.jobs]


def _of(snapshots: list[JobSnapshot]) -> list[tuple[int, str]]:
    return [(snapshot.job.number, snapshot.state) for snapshot in snapshots]


def _job_status(snapshot: JobSnapshot, submission_id: str) -> JobStatus:
    job = snapshot.job
    return JobStatus(
        number=job.number,
        kind=job.kind,
        state=snapshot.state,
        stage=snapshot.stage,
        created=job.created,
        started=snapshot.begun,
        ended=snapshot.ended,
        message=snapshot.message,
        ray_id=submission_id,
    )
