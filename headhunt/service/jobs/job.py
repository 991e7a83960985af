"""The process of a job, which Ray runs: `python -m headhunt.service.jobs.job FOLDER`, in the service's work directory.

Runs the stages one after the other, each in its own process, and records their results. Its output goes to the job's log and,
unchanged, to Ray's.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from features.run_file import load
from features.runtime.commands.frame import INTERRUPTED
from features.runtime.commands.stages import run_stage
from features.runtime.errors import HeadhuntError
from features.runtime.interrupts import interrupt
from features.runtime.log import log
from features.runtime.processes import this_process
from headhunt.service.jobs.records import CONFIGURATION, Ended, Files, Job, Started, now
from reports.config import Run
from train.promotion.artifact import PromoteResult

STAGES = {"prepare": ("features", "prepare"), "cache": ("features", "cache"), "search": ("search", "run")}
"""The stages of a search, in order."""

PROMOTIONS = {"promote": ("train", "promote"), "export": ("train", "export"), "report": ("reports", "build")}
"""The stages of a promotions job; every promoted trial is exported."""

Result = tuple[str, str | None]
"""The final state of the job, and the reason."""


def main(folder: Path) -> int:
    """Runs the job in this folder and returns the exit status. Does nothing if another process has begun it."""
    files = Files(folder)
    job = files.job()
    me = this_process()
    begun = Started(host=me.host, pid=me.pid, place=me.place, birth=me.birth, ray_id=job.ray_id, time=now())
    if files.ended() or not files.begin(begun):
        log.print(f"Job {job.ray_id} was already started by another process; nothing to do.")
        return 0
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    with _logged(files.log):
        try:
            state, message = _run(files, job)
        except KeyboardInterrupt:
            state, message = "interrupted", "stopped by a signal"
        except Exception as error:
            traceback.print_exc()
            state, message = "failed", f"internal error in headhunt: {type(error).__name__}: {error}"
        if state == "interrupted" and files.stop.exists():
            state, message = "stopped", "stopped as requested; it can be resumed"
        log.print(f"{job.kind} of {job.search}: {state}.")
    files.write_ended(Ended.model_validate({"state": state, "message": message, "time": now()}))
    return 0 if state in ("finished", "stopped") else 1


def _run(files: Files, job: Job) -> Result:
    file = Path(job.search) / CONFIGURATION
    options = ["--config", str(file), "--json"]
    results: dict[str, Any] = files.results()
    try:
        load(Run, file)
        for stage, words in (STAGES if job.kind == "search" else PROMOTIONS).items():
            if files.stop.exists():
                raise KeyboardInterrupt
            files.write_stage(stage)
            log.rule(" ".join(words), align="left")
            results[stage] = _stage(stage, [*words, *options], job, results)
            files.write_results(results)
    except typer.Exit as left:
        if left.exit_code == INTERRUPTED:
            return "interrupted", "a stage's process was stopped; finished work is saved"
        return "failed", _last_error(files.log)
    except HeadhuntError as error:
        log.print(f"headhunt: {error}")
        return "failed", str(error)
    return "finished", None


def _stage(stage: str, command: list[str], job: Job, results: dict[str, Any]) -> Any:
    match stage:
        case "promote":
            return run_stage([*command, *job.arguments])
        case "export":
            promoted = PromoteResult.model_validate(results["promote"]).promotions
            return [run_stage([*command, "--trial", str(each.trial)]) for each in promoted]
        case _:
            return run_stage(command)


def _last_error(path: Path) -> str:
    """The last error message in the log, without a trailing command and its lead-in."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^headhunt: (.*(?:\n  .*)*)", text, re.MULTILINE)
    return (
        re.sub(r" [^.\n]*:$", "", found[-1]) if found else "a stage failed without an error message; see the job's log"
    )


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Also copies the output of this process and its children to the log."""
    reading, writing = os.pipe()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    for descriptor in (1, 2):
        os.dup2(writing, descriptor)
    os.close(writing)
    thread = threading.Thread(target=_copy, args=(reading, path, kept[1]), daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
        thread.join(timeout=10)  # a child that outlived its stage may keep the pipe open


def _copy(reading: int, path: Path, terminal: int) -> None:
    with path.open("ab", buffering=0) as file:
        while part := os.read(reading, 65536):
            for end in (file.fileno(), terminal):
                with suppress(OSError):  # e.g. a full disk: writers to this pipe must not block forever
                    os.write(end, part)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
