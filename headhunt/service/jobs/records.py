"""A job as it is written down: a folder below the search's own, which tells its true state whatever became of the service or Ray.

    <root>/<name>/headhunt.yaml      the configuration
    <root>/<name>/jobs/0001/
        job.json       what was asked for, by the service
        started.json   which process does it, by that process: whoever writes it first
        stage.txt      the stage that it is at
        results.json   what the finished stages gave
        log.txt        what it said
        ended.json     how it ended
        stop           somebody asked for its end
        stops/         the idempotency keys of those who did

Every file is whole or absent. `started.json` and `ended.json` stay as they were first written.
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
"""States of a job that is not over."""

CONFIGURATION = "headhunt.yaml"


class Job(BaseModel):
    """What was asked for. `attempt` counts how often it was given to Ray; only one of them ever begins."""

    model_config = ConfigDict(frozen=True)

    search: str
    number: int
    kind: Kind
    arguments: tuple[str, ...] = ()
    """Of `train promote`."""
    created: str
    attempt: int = 0
    key: str | None = None
    """sha256 (hex) of the request's idempotency key."""
    request: str | None = None
    """sha256 (hex) of what was asked for with it."""

    @property
    def ray_id(self) -> str:
        """Ray's number of it: the same job has it only once."""
        return f"{self.search}-{self.number}.{self.attempt}"


class Started(BaseModel):
    """The process that does it. `place` is where a process number means something, `birth` tells it from a later one."""

    host: str
    pid: int
    place: str
    birth: str
    ray_id: str
    time: str


class Ended(BaseModel):
    """How it ended, with one line that says why."""

    state: Literal["finished", "stopped", "failed", "interrupted"]
    message: str | None
    time: str


class Files(NamedTuple):
    """A job's folder."""

    folder: Path

    @property
    def log(self) -> Path:
        """What it said."""
        return self.folder / "log.txt"

    @property
    def stop(self) -> Path:
        """There when somebody asked for its end."""
        return self.folder / "stop"

    def job(self) -> Job:
        """What was asked for."""
        return Job.model_validate_json((self.folder / "job.json").read_text(encoding="utf-8"))

    def write_job(self, job: Job) -> None:
        """Writes what was asked for, whole or not at all."""
        write_text(self.folder / "job.json", job.model_dump_json(indent=1) + "\n")

    def started(self) -> Started | None:
        """Who does it."""
        found = _read(self.folder / "started.json")
        return Started.model_validate_json(found) if found else None

    def ended(self) -> Ended | None:
        """How it ended; None before."""
        found = _read(self.folder / "ended.json")
        return Ended.model_validate_json(found) if found else None

    def write_ended(self, ended: Ended) -> Ended:
        """Says how it ended, once for all: gives what stands, which is what was said first."""
        return ended if self._write_once("ended.json", ended) else self.ended() or ended

    def begin(self, started: Started) -> bool:
        """Makes this process the one that does it; False when there is, or was, another."""
        return self._write_once("started.json", started)

    def stops(self) -> dict[str, str]:
        """The idempotency keys of the requests to stop it, and what was asked for with them: both as sha256 (hex)."""
        return {
            path.name: path.read_text(encoding="utf-8").strip() for path in (self.folder / "stops").glob("[0-9a-f]*")
        }

    def add_stop(self, key: str, asked: str) -> None:
        """Remembers a request to stop it."""
        write_text(self.folder / "stops" / key, asked + "\n")

    def _write_once(self, name: str, content: BaseModel) -> bool:
        mine = self.folder / f".{name}.{uuid4().hex}"  # process numbers of two machines may be the same
        write_text(mine, content.model_dump_json(indent=1) + "\n")
        try:
            os.link(mine, self.folder / name)  # the whole file, and only where there is none
        except FileExistsError:
            return False
        finally:
            mine.unlink()
        return True

    def stage(self) -> str | None:
        """The stage that it is at."""
        return (_read(self.folder / "stage.txt") or "").strip() or None

    def write_stage(self, stage: str) -> None:
        """Says which stage it is at."""
        write_text(self.folder / "stage.txt", stage + "\n")

    def results(self) -> dict[str, Any]:
        """What the finished stages gave, by their names."""
        found: dict[str, Any] = json.loads(_read(self.folder / "results.json") or "{}")
        return found

    def write_results(self, results: dict[str, Any]) -> None:
        """Writes what the finished stages gave."""
        write_text(self.folder / "results.json", json.dumps(results, indent=1) + "\n")


def job_files(root: Path, search: str, number: int) -> Files:
    """The folder of a search's job of this number."""
    return Files(root / search / "jobs" / f"{number:04}")


def job_numbers(root: Path, search: str) -> list[int]:
    """The jobs of a search that are written down."""
    return sorted(int(path.parent.name) for path in (root / search / "jobs").glob("[0-9]*/job.json"))


def searches(root: Path) -> Iterator[str]:
    """The names of the searches that are written down."""
    for path in root.glob("*/jobs/0001/job.json"):
        folder = path.parents[2]
        if not folder.name.startswith(".") and not folder.is_symlink() and (folder / CONFIGURATION).is_file():
            yield folder.name


def now(precision: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """The time in UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec=precision)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
