"""A job on disk: a folder below the search's own, which holds its true state whatever happened to the service or Ray.

    <root>/<name>/headhunt.yaml      the configuration
    <root>/<name>/jobs/0001/
        job.json       the request; written by the service
        started.json   the process that runs it; written by that process, first writer wins
        stage.txt      the current stage
        results.json   the results of the finished stages
        log.txt        its output
        ended.json     how it ended
        stop           exists if a stop was requested
        stops/         the idempotency keys of the stop requests

Every file is complete or absent. `started.json` and `ended.json` are written once and never change.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from pydantic import BaseModel, ConfigDict

from features.runtime.atomic import write_text

Kind = Literal["search", "promotions"]
State = Literal["queued", "running", "stopping", "finished", "stopped", "failed", "interrupted"]

ACTIVE = ("queued", "running", "stopping")
"""States of a job that has not ended."""

CONFIGURATION = "headhunt.yaml"


class Job(BaseModel):
    """The request. `attempt` counts submissions to Ray, of which only one ever begins."""

    model_config = ConfigDict(frozen=True)

    search: str
    number: int
    kind: Kind
    arguments: tuple[str, ...] = ()
    """Arguments of `train promote`."""
    created: str
    attempt: int = 0
    key: str | None = None
    """sha256 (hex) of the request's idempotency key."""
    request: str | None = None
    """sha256 (hex) of the request with that key."""

    @property
    def ray_id(self) -> str:
        """The job's id for Ray, unique to this attempt."""
        return f"{self.search}-{self.number}.{self.attempt}"


class Started(BaseModel):
    """The process that runs the job. `place` is the PID namespace; `birth` distinguishes it from a later process with its PID."""

    host: str
    pid: int
    place: str
    birth: str
    ray_id: str
    time: str


class Ended(BaseModel):
    """How the job ended, with a one-line reason."""

    state: Literal["finished", "stopped", "failed", "interrupted"]
    message: str | None
    time: str


class Files(NamedTuple):
    """A job's folder."""

    folder: Path

    @property
    def log(self) -> Path:
        """The job's output."""
        return self.folder / "log.txt"

    @property
    def stop(self) -> Path:
        """Exists if a stop was requested."""
        return self.folder / "stop"

    def job(self) -> Job:
        """The request."""
        return Job.model_validate_json((self.folder / "job.json").read_text(encoding="utf-8"))

    def write_job(self, job: Job) -> None:
        """Writes the request atomically."""
        write_text(self.folder / "job.json", job.model_dump_json(indent=1) + "\n")

    def started(self) -> Started | None:
        """The process that runs the job; None before it began."""
        found = _read(self.folder / "started.json")
        return Started.model_validate_json(found) if found else None

    def ended(self) -> Ended | None:
        """How the job ended; None before."""
        found = _read(self.folder / "ended.json")
        return Ended.model_validate_json(found) if found else None

    def write_ended(self, ended: Ended) -> Ended:
        """Records how the job ended. The first call wins; returns what is recorded."""
        return ended if self._write_once("ended.json", ended) else self.ended() or ended

    def begin(self, started: Started) -> bool:
        """Claims the job for this process; False if another process has already claimed it."""
        return self._write_once("started.json", started)

    def stops(self) -> dict[str, str]:
        """The stop requests: idempotency key to request, both as sha256 (hex)."""
        return {
            path.name: path.read_text(encoding="utf-8").strip() for path in (self.folder / "stops").glob("[0-9a-f]*")
        }

    def add_stop(self, key: str, asked: str) -> None:
        """Records a stop request."""
        write_text(self.folder / "stops" / key, asked + "\n")

    def _write_once(self, name: str, content: BaseModel) -> bool:
        mine = self.folder / f".{name}.{uuid4().hex}"  # not the PID: processes on two machines can share one
        write_text(mine, content.model_dump_json(indent=1) + "\n")
        try:
            os.link(mine, self.folder / name)  # atomic; fails if the file exists
        except FileExistsError:
            return False
        finally:
            mine.unlink()
        return True

    def stage(self) -> str | None:
        """The current stage."""
        return (_read(self.folder / "stage.txt") or "").strip() or None

    def write_stage(self, stage: str) -> None:
        """Records the current stage."""
        write_text(self.folder / "stage.txt", stage + "\n")

    def results(self) -> dict[str, Any]:
        """The results of the finished stages, by stage name."""
        found: dict[str, Any] = json.loads(_read(self.folder / "results.json") or "{}")
        return found

    def write_results(self, results: dict[str, Any]) -> None:
        """Writes the results of the finished stages."""
        write_text(self.folder / "results.json", json.dumps(results, indent=1) + "\n")


def job_files(root: Path, search: str, number: int) -> Files:
    """The folder of a search's job with this number."""
    return Files(root / search / "jobs" / f"{number:04}")


def job_numbers(root: Path, search: str) -> list[int]:
    """The numbers of a search's jobs on disk, in order."""
    return sorted(int(path.parent.name) for path in (root / search / "jobs").glob("[0-9]*/job.json"))


def searches(root: Path) -> Iterator[str]:
    """The names of the searches on disk."""
    for path in root.glob("*/jobs/0001/job.json"):
        folder = path.parents[2]
        if not folder.name.startswith(".") and not folder.is_symlink() and (folder / CONFIGURATION).is_file():
            yield folder.name


def now(precision: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """The current UTC time in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec=precision)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
