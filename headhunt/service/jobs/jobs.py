"""The jobs of the service: recorded on disk first, then submitted to Ray; their state is derived from these records."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple
from uuid import uuid4

from features.runtime.atomic import make_folder, write_text
from features.runtime.errors import HeadhuntError, LostError
from features.runtime.processes import birth, this_process
from headhunt.service.jobs.admission import Admitted, contained
from headhunt.service.jobs.once_per_problem import OncePerProblemLog
from headhunt.service.jobs.raycluster import RayJobs
from headhunt.service.jobs.records import (
    ACTIVE,
    CONFIGURATION,
    Ended,
    Files,
    Job,
    Kind,
    Started,
    State,
    job_files,
    job_numbers,
    now,
    searches,
)

GRACE_SECONDS = 75
"""Grace period for a job that Ray reports as ended but that has recorded no start or no end, before it is resubmitted or marked
interrupted: a process needs seconds to write these records, and over NFS another machine can see them a minute later."""


class ConflictError(HeadhuntError):
    """The request conflicts with the current state."""


class UnknownError(HeadhuntError):
    """The search, job or file does not exist."""


class JobSnapshot(NamedTuple):
    """The current state of a job. `begun` and `ended` are ISO 8601 times."""

    job: Job
    state: State
    stage: str | None
    message: str | None
    begun: str | None
    ended: str | None


class Request(NamedTuple):
    """An idempotency key and the request sent with it, both as sha256 (hex)."""

    key: str
    asked: str

    @classmethod
    def of(cls, key: str, *asked: bytes | str) -> Request:
        """Equal for equal keys and equal parts."""
        digest = hashlib.sha256()
        for part in asked:
            digest.update(hashlib.sha256(part if isinstance(part, bytes) else part.encode()).digest())
        return cls(hashlib.sha256(key.encode()).hexdigest(), digest.hexdigest())


class Jobs:
    """All jobs below `root`. Thread-safe; only one process at a time may manage them."""

    def __init__(self, root: Path, ray: RayJobs) -> None:
        self._root, self._ray = root, ray
        self._lock = threading.RLock()
        self._snapshots: dict[str, dict[int, JobSnapshot]] = {}
        self._keys: dict[str, tuple[str, str, int]] = {}
        self._unsure_since: dict[str, float] = {}
        self._asking: set[tuple[str, str]] = set()
        # Ray can be slow, so its calls run in threads; a single submit thread keeps the order of submission.
        self._threads = {"submit": ThreadPoolExecutor(1, "submit"), "stop": ThreadPoolExecutor(4, "stop")}
        self._problems = OncePerProblemLog()
        self.ray_answered: float | None = None
        """When Ray's job server last answered, on the monotonic clock."""
        self._sweep()
        for name in searches(root):
            of = job_files(root, name, 1).job().search
            if of != name:  # under this name its jobs would run again, in the other folder
                self._problems.log(
                    name,
                    f"{root / name} is the renamed folder of the search {of!r} and is ignored. Rename it back to list the "
                    "search, or move it out of the work directory to silence this warning.",
                )
                continue
            self._snapshots[name] = {}
            for number in job_numbers(root, name):
                self._remember(job_files(root, name, number).job())

    def submission_id(self, job: Job) -> str:
        """The job's submission id in Ray's own job list."""
        return self._ray.submission_id(job.ray_id)

    def names(self) -> list[str]:
        """All searches, newest first."""
        with self._lock:
            created = {name: snapshots[1].job.created for name, snapshots in self._snapshots.items() if snapshots}
            return sorted(created, key=lambda name: (created[name], name), reverse=True)

    def of(self, name: str) -> list[JobSnapshot]:
        """The jobs of a search, oldest first; UnknownError if the search does not exist."""
        with self._lock:
            if not self._snapshots.get(name):
                raise UnknownError(f"no search is named {name!r}. GET /searches lists the searches.")
            return [snapshot for _, snapshot in sorted(self._snapshots[name].items())]

    def files(self, name: str, number: int | None = None) -> Files:
        """The folder of a job, by default the search's last one; UnknownError if it does not exist."""
        numbers = [snapshot.job.number for snapshot in self.of(name)]
        if number is not None and number not in numbers:
            raise UnknownError(
                f"the search {name!r} has no job {number}; existing jobs: {', '.join(map(str, numbers))}."
            )
        return job_files(self._root, name, number or numbers[-1])

    def create(self, admitted: Admitted, request: Request | None) -> str:
        """Creates a search with its first job and returns its name. ConflictError if the name is taken."""
        name = admitted.run.name
        with self._lock:
            known = self._known(request)
            if known:
                return known
            folder = self._root / name
            taken = ConflictError(
                f"the search {name!r} already exists. Resume it by POST /searches/{name}/resume (`headhunt submit --resume "
                f"{name}`), or choose another `name`."
            )
            if self._snapshots.get(name):
                raise taken
            making = self._root / f".{name}.{uuid4().hex}.tmp"
            shutil.rmtree(making, ignore_errors=True)
            write_text(making / CONFIGURATION, admitted.text)
            job = self._job(name, 1, "search", (), request)
            files = Files(make_folder(making / "jobs" / "0001"))
            files.write_job(job)
            try:
                making.rename(folder)  # atomic; fails if the folder exists
            except OSError:
                shutil.rmtree(making, ignore_errors=True)
                raise ConflictError(
                    f"the work directory already contains {name!r}, which is not a search of this service. Choose another `name`."
                ) from None
            self._remember(job)
        self._request_ray("submit", job)
        return name

    def resume(self, name: str, request: Request | None, kind: Kind | None = None) -> None:
        """Adds a job that resumes what did not finish: the promotions if the last job is an unfinished promotions job, else the
        search.

        `kind` overrides the choice; ConflictError for promotions if there were none.
        """
        with self._lock:
            promotions = [snapshot for snapshot in self.of(name) if snapshot.job.kind == "promotions"]
            if kind == "promotions" and not promotions:
                raise ConflictError(
                    f"the search {name!r} has no promotions job. Start one: POST /searches/{name}/promotions."
                )
            last = self.of(name)[-1]
            if kind == "promotions" or (kind is None and last in promotions and last.state != "finished"):
                self._add(name, "promotions", promotions[-1].job.arguments, request, "resume it")
            else:
                self._add(name, "search", (), request, "resume it")

    def promote(self, name: str, arguments: Sequence[str], request: Request | None) -> None:
        """Adds a job that promotes trials, exports them and builds the report."""
        self._add(name, "promotions", tuple(arguments), request, "promote its trials")

    def stop(self, name: str, request: Request | None) -> None:
        """Asks the search's active job to save its state and end; no effect on a job that has ended."""
        with self._lock:
            snapshots = self.of(name)
            if self._known(request):
                return
            active = [snapshot for snapshot in snapshots if snapshot.state in ACTIVE]
            for snapshot in active:
                files = job_files(self._root, name, snapshot.job.number)
                write_text(files.stop, now() + "\n")
                self._look(snapshot.job, None)
            if request:  # a repeated request must not stop a job that began later
                last = snapshots[-1].job.number
                job_files(self._root, name, last).add_stop(*request)
                self._keys[request.key] = (request.asked, name, last)
        for snapshot in active:
            self._request_ray("stop", snapshot.job)

    def look_after(self) -> None:
        """Updates the state of every active job, and submits to Ray what is missing there. Called from a background thread."""
        statuses: dict[str, str] | None = None
        try:
            statuses = self._ray.statuses()
            self.ray_answered = time.monotonic()
        except LostError as error:
            self._problems.log("Ray", str(error))
        with self._lock:
            active = [
                snapshot.job
                for snapshots in self._snapshots.values()
                for snapshot in snapshots.values()
                if snapshot.state in ACTIVE
            ]
            for job in sorted(active, key=lambda job: job.created):
                about = f"job {job.number} of the search {job.search!r}"
                try:
                    self._look(job, statuses)
                except (HeadhuntError, OSError) as error:  # e.g. a full disk; the other jobs are still updated
                    self._problems.log(about, f"{about}: {error}")
                else:
                    self._problems.log(about, "")

    def _add(self, name: str, kind: Kind, arguments: tuple[str, ...], request: Request | None, what: str) -> None:
        with self._lock:
            snapshots = self.of(name)
            if self._known(request):
                return
            busy = [snapshot for snapshot in snapshots if snapshot.state in ACTIVE]
            if busy:
                wait = (
                    "It is saving its state: wait until it ends"
                    if busy[0].state == "stopping"
                    else "Wait until it ends, or stop it"
                )
                raise ConflictError(
                    f"the search {name!r} already has a {busy[0].state} job ({busy[0].job.kind}). {wait}, then {what}."
                )
            job = self._job(name, snapshots[-1].job.number + 1, kind, arguments, request)
            files = job_files(self._root, name, job.number)
            make_folder(files.folder)
            files.write_job(job)
            self._remember(job)
        self._request_ray("submit", job)

    def _job(self, name: str, number: int, kind: Kind, arguments: tuple[str, ...], request: Request | None) -> Job:
        key, asked = request if request else (None, None)
        return Job(
            search=name, number=number, kind=kind, arguments=arguments, created=now("milliseconds"), attempt=1, key=key,
            request=asked,
        )  # fmt: skip

    def _known(self, request: Request | None) -> str | None:
        """The search that the same request created or changed before, if any; ConflictError if its key was used for another."""
        found = self._keys.get(request.key) if request else None
        if request is None or found is None:
            return None
        asked, name, _ = found
        if asked != request.asked:
            raise ConflictError(
                "this Idempotency-Key was already used for a different request. Use a new key for each request."
            )
        return name

    def _remember(self, job: Job) -> None:
        asked = job_files(self._root, job.search, job.number).stops()
        if job.key and job.request:
            asked[job.key] = job.request
        self._keys |= {key: (request, job.search, job.number) for key, request in asked.items()}
        self._look(job, None)

    def _request_ray(self, what: Literal["submit", "stop"], job: Job) -> None:
        """Sends a request to Ray in another thread, unless it is pending already; `look_after` retries if Ray does not answer."""
        asked = (what, job.ray_id)
        if asked in self._asking:
            return
        self._asking.add(asked)
        folder = job_files(self._root, job.search, job.number).folder

        def ask() -> None:
            try:
                if what == "submit":
                    self._ray.submit(job.ray_id, folder)
                else:
                    self._ray.stop(job.ray_id)
                self._problems.log("Ray", "")
            except LostError as error:
                self._problems.log("Ray", str(error))
            finally:
                self._asking.discard(asked)

        self._threads[what].submit(ask)

    def _look(self, job: Job, statuses: dict[str, str] | None) -> None:
        """Updates a job's records and snapshot, and sends Ray the requests it needs. `statuses` is None if Ray did not answer."""
        files = job_files(self._root, job.search, job.number)
        started, ended = files.started(), files.ended()
        if ended is None:
            wanted_end = files.stop.exists()
            if started is None and wanted_end and self._never_began(job, files):
                ended = files.ended()
            elif started is not None and not self._is_alive(job, started, statuses):
                ended = self._end(files, wanted_end)
            elif started is None and statuses is not None and self._is_due(job, statuses):
                job = job.model_copy(update={"attempt": job.attempt + (job.ray_id in statuses)})
                files.write_job(job)
                self._request_ray("submit", job)
            elif wanted_end and statuses is not None and statuses.get(job.ray_id) in ("PENDING", "RUNNING"):
                self._request_ray("stop", job)
        if ended:
            state: State = ended.state
        elif files.stop.exists():
            state = "stopping"
        else:
            state = "running" if started else "queued"
        message, end = (ended.message, ended.time) if ended else (None, None)
        snapshot = JobSnapshot(job, state, files.stage(), message, started.time if started else None, end)
        self._snapshots.setdefault(job.search, {})[job.number] = snapshot

    def _never_began(self, job: Job, files: Files) -> bool:
        """Ends a job that was stopped while queued: claims it here so that no other process can begin it."""
        me = this_process()
        here = Started(host=me.host, pid=me.pid, place=me.place, birth=me.birth, ray_id=job.ray_id, time=now())
        if not files.begin(here):
            return False
        files.write_ended(Ended(state="stopped", message="stopped before it started; it can be resumed", time=now()))
        return True

    def _end(self, files: Files, wanted: bool) -> Ended:
        """Records the end of a job whose process died without recording one."""
        message = "its process was killed; finished work is saved and the job can be resumed"
        return files.write_ended(Ended(state="stopped" if wanted else "interrupted", message=message, time=now()))

    def _is_alive(self, job: Job, started: Started, statuses: dict[str, str] | None) -> bool:
        """Whether the process that began a job is still alive: checked directly on this machine, through Ray elsewhere."""
        if started.place == this_process().place:
            return birth(started.pid) == started.birth
        if statuses is None or statuses.get(started.ray_id) in ("PENDING", "RUNNING"):
            self._unsure_since.pop(job.ray_id, None)
            return True
        return self._is_recent(job)

    def _is_due(self, job: Job, statuses: dict[str, str]) -> bool:
        """Whether a job that has not begun must be submitted again: Ray does not know it, or reports that it ended."""
        if statuses.get(job.ray_id) in ("PENDING", "RUNNING"):
            self._unsure_since.pop(job.ray_id, None)
            return False
        return job.ray_id not in statuses or not self._is_recent(job)

    def _is_recent(self, job: Job) -> bool:
        since = self._unsure_since.setdefault(job.ray_id, time.monotonic())
        return time.monotonic() - since < GRACE_SECONDS

    def _sweep(self) -> None:
        """Deletes the incomplete folders of a killed service."""
        for left in self._root.glob(".*.tmp"):
            shutil.rmtree(left, ignore_errors=True)


def inside(path: Path, folder: Path) -> Path:
    """The path, if it exists and lies in the folder after resolving symlinks; UnknownError otherwise."""
    if not path.exists() or not contained(path, Path(os.path.realpath(folder))):
        raise UnknownError(f"{path.name!r} does not exist here.")
    return path
