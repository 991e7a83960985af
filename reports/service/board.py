"""How every search stands, kept up to date by a thread, so that a request waits for neither storage nor Ray nor disk."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from features.configfile import load
from features.errors import HeadhuntError
from reports.config import Run
from reports.service.admission import contained
from reports.service.complaints import Complaints
from reports.service.downloads import exported_formats, report_page
from reports.service.jobs import Jobs, Standing
from reports.service.records import ACTIVE, CONFIGURATION, job_files
from reports.service.schemas import (
    Exported,
    Exports,
    Health,
    JobStatus,
    Promotion,
    Promotions,
    SearchStatus,
    TrialCounts,
)
from reports.service.studies import Studies, Study, no_study
from train.promotion.promote import promoted, summary

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

LOOK_SECONDS = 1.0
"""How often the thread looks after jobs and searches that are at work."""

LONGEST_PAUSE = 10.0
"""Between two looks: four times as long as a look takes, and no longer than this."""

REST_SECONDS = 30.0
"""How often it looks at the others, whose studies change only by a dashboard."""

UNANSWERED_SECONDS = 20
"""Ray counts as unreachable when it was silent for so long."""


class Entry(NamedTuple):
    """A search as it was last seen, and its answer as JSON."""

    status: SearchStatus
    study: Study
    json: bytes


class Board:
    """The searches below `root`. `start` begins to look, `end` stops."""

    def __init__(
        self, root: Path, jobs: Jobs, storage: BaseStorage, version: str, keep_ray: Callable[[], None] | None = None
    ) -> None:
        """`keep_ray` starts Ray again where it has died."""
        self._root, self._jobs, self._version, self._keep_ray = root, jobs, version, keep_ray
        self._entries: dict[str, Entry] = {}
        self._promotions: dict[str, tuple[Entry, bytes]] = {}
        self._seen: dict[str, float] = {}
        self._complaints = Complaints()
        self._runs: dict[str, Run] = {}
        self._studies = Studies(storage)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._json = b'{"searches":[]}'
        self._thread = threading.Thread(target=self._look_on, name="board", daemon=True)

    def start(self) -> None:
        """Looks once, and then goes on looking."""
        self.look()
        self._thread.start()

    def end(self) -> None:
        """Stops looking."""
        self._ended.set()
        self._thread.join(10)

    @property
    def all_json(self) -> bytes:
        """Every search, as JSON of `Searches`."""
        return self._json

    def entry(self, name: str) -> Entry:
        """A search; UnknownError when there is none."""
        found = self._entries.get(name)
        if found is None:
            self._jobs.of(name)  # one that is younger than the last look
            found = self.refresh(name)
        return found

    def entries(self) -> list[Entry]:
        """Every search, the newest first."""
        entries = self._entries
        return [entries[name] for name in self._jobs.names() if name in entries]

    def run(self, name: str) -> Run:
        """The configuration of a search."""
        self._jobs.of(name)
        if name not in self._runs:
            self._runs[name] = load(Run, self._root / name / CONFIGURATION)
        return self._runs[name]

    def refresh(self, name: str) -> Entry:
        """Looks at a search now."""
        with self._lock:
            self._look_at(name)
            self._write()
            return self._entries[name]

    def health(self) -> Health:
        """Whether Ray and the storage answer."""
        answered = self._jobs.ray_answered
        ray = answered is not None and time.monotonic() - answered < UNANSWERED_SECONDS
        return Health(
            status="ok" if ray and self._studies.answers else "degraded",
            ray="ok" if ray else "unreachable",
            storage="ok" if self._studies.answers else "unreachable",
            version=self._version,
        )

    def top(self, name: str, limit: int) -> bytes:
        """The leaderboard of a search, as JSON of `Top`; `limit` is at most LONGEST_TOP."""
        return b'{"trials":[' + b",".join(self.entry(name).study.rows[:limit]) + b"]}"

    def history(self, name: str) -> bytes:
        """The values of a search's trials, as JSON of `History`."""
        return self.entry(name).study.history

    def promotions(self, name: str) -> bytes:
        """The finished promotions of a search, as JSON of `Promotions`; reads files."""
        entry, run = self.entry(name), self._here(name)
        inside = [number for number in promoted(run) if contained(run.workdir / f"promotions/{number}", self._root)]
        rows = [{**summary(run, number), "folder": f"{name}/promotions/{number}"} for number in inside]
        told = Promotions(promotions=[Promotion.model_validate(row) for row in rows]).model_dump_json().encode()
        self._promotions[name] = (entry, told)
        return told

    def known_promotions(self, name: str) -> bytes | None:
        """The same, where they were read since the last look at the search."""
        entry, told = self._promotions.get(name, (None, None))
        return told if entry is self.entry(name) else None

    def exports(self, name: str) -> Exports:
        """What a search has exported."""
        self._jobs.of(name)
        folders = [path for path in (self._root / name / "exports").glob("*") if path.name.isdigit()]
        found = [(int(folder.name), exported_formats(folder)) for folder in folders]
        return Exports(exports=[Exported(trial=trial, formats=formats) for trial, formats in sorted(found) if formats])

    def look(self) -> None:
        """Looks after the jobs, and at every search that is at work or has not been looked at for a while."""
        with self._outliving("Ray"):
            if self._keep_ray:
                self._keep_ray()
        with self._outliving("the jobs"):
            self._jobs.look_after()
        with self._lock:
            with self._outliving("the storage"):
                self._studies.ask()
            for name in self._jobs.names():
                rested = time.monotonic() - self._seen.get(name, -REST_SECONDS) >= REST_SECONDS
                before = self._entries.get(name)
                changed = before is None or _states(before.status) != _of(self._jobs.of(name))
                if rested or changed or (before and before.status.state in ACTIVE):
                    with self._outliving(f"the files of the search {name!r}"):
                        self._look_at(name)
            self._write()

    def _look_on(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            with self._outliving("the searches"):
                self.look()
            self._ended.wait(min(max(LOOK_SECONDS, 4 * (time.monotonic() - began)), LONGEST_PAUSE))

    @contextmanager
    def _outliving(self, what: str) -> Iterator[None]:
        """Says a fault in a look at this, so that all others are looked at."""
        try:
            yield
        except Exception as error:
            self._complaints.say(what, f"cannot look at {what}: {_fault(error)}")
        else:
            self._complaints.say(what, "")

    def _write(self) -> None:
        parts = b",".join(entry.json for entry in self.entries())
        self._json = b'{"searches":[' + parts + b"]}"

    def _here(self, name: str) -> Run:
        """The configuration with a workdir that holds wherever this process is."""
        return self.run(name).model_copy(update={"workdir": self._root / name})

    def _look_at(self, name: str) -> None:
        standings = self._jobs.of(name)
        workdir, last = self._root / name, standings[-1]
        before = self._entries.get(name)
        objective, trials = (before.status.objective, before.status.trials.total) if before else ("", 0)
        study = before.study if before else None
        fault = None
        try:
            run = self.run(name)
            objective, trials = run.search.objective, run.search.trials
            study = study or no_study(objective)
            if self._studies.answers:
                study = self._studies.read(run, study, last)
        except Exception as error:  # a configuration of another version, a study that somebody wrote to
            fault = _fault(error)  # its jobs are told all the same
        study = study or no_study(objective)
        status = SearchStatus(
            name=name,
            state=last.state,
            stage=last.stage if last.state in ACTIVE else None,
            message=last.message or fault,
            objective=objective,
            study_id=study.id,
            trials=study.counts or TrialCounts(total=trials),
            trials_per_minute=study.per_minute,
            images_per_second=self._images_per_second(name, standings),
            best=study.best,
            created=standings[0].job.created,
            jobs=[_job_status(standing, self._jobs.submission_id(standing.job)) for standing in standings],
            promotions=len(list(workdir.glob("promotions/*/metrics.json"))),
            exports=len(self.exports(name).exports),
            report=report_page(self._root, name) is not None,
        )
        self._entries[name] = Entry(status, study, status.model_dump_json().encode())
        self._seen[name] = time.monotonic()
        about = f"the search {name!r}"
        self._complaints.say(about, f"cannot look at {about}: {fault}" if fault else "")

    def _images_per_second(self, name: str, standings: list[Standing]) -> float | None:
        """What the build that is under way said last, or what the latest one gave."""
        last = standings[-1]
        files = job_files(self._root, name, last.job.number)
        if last.state == "running" and last.stage == "cache" and files.log.exists():
            with files.log.open("rb") as file:
                file.seek(max(0, files.log.stat().st_size - 2000))
                said = re.findall(rb"([\d.]+) images/s", file.read())
            if said:
                return float(said[-1])
        for standing in reversed(standings):
            found = job_files(self._root, name, standing.job.number).results().get("cache")
            if found:
                return float(found["images_per_second"])
        return None


def _fault(error: Exception) -> str:
    return str(error) if isinstance(error, HeadhuntError) else f"{type(error).__name__}: {error}"


def _states(status: SearchStatus) -> list[tuple[int, str]]:
    return [(job.number, job.state) for job in status.jobs]


def _of(standings: list[Standing]) -> list[tuple[int, str]]:
    return [(standing.job.number, standing.state) for standing in standings]


def _job_status(standing: Standing, submission_id: str) -> JobStatus:
    job = standing.job
    return JobStatus(
        number=job.number,
        kind=job.kind,
        state=standing.state,
        stage=standing.stage,
        created=job.created,
        started=standing.begun,
        ended=standing.ended,
        message=standing.message,
        ray_id=submission_id,
    )
