"""The process of a job, which Ray runs: `python -m headhunt.service.jobs.job FOLDER`, in the service's work directory.

It does the stages one after the other, each as a process of its own, and writes down what becomes of them. What it says goes
to the job's own log and, as it stands, to Ray's.
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
"""What a search does, in order."""

PROMOTIONS = {"promote": ("train", "promote"), "export": ("train", "export"), "report": ("reports", "build")}
"""What a job of promotions does; the export is of each promoted trial."""

Result = tuple[str, str | None]
"""The state that the job ends in, and why."""


def main(folder: Path) -> int:
    """Does the job of this folder; its exit status. A job that another process has begun is left alone."""
    files = Files(folder)
    job = files.job()
    me = this_process()
    begun = Started(host=me.host, pid=me.pid, place=me.place, birth=me.birth, ray_id=job.ray_id, time=now())
    if files.ended() or not files.begin(begun):
        log.print(f"Job {job.ray_id} was started by another process; nothing to do here.")
        return 0
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    with _logged(files.log):
        try:
            state, message = _run(files, job)
        except KeyboardInterrupt:
            state, message = "interrupted", "it was stopped by a signal"
        except Exception as error:
            traceback.print_exc()
            state, message = "failed", f"a fault in headhunt itself: {type(error).__name__}: {error}"
        if state == "interrupted" and files.stop.exists():
            state, message = "stopped", "stopped as asked for; it can be resumed"
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
            return "interrupted", "the process of a stage was stopped; finished work is saved"
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
    """The last message of a command in the log, without the command that follows it and what leads over to that."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^headhunt: (.*(?:\n  .*)*)", text, re.MULTILINE)
    return (
        re.sub(r" [^.\n]*:$", "", found[-1]) if found else "a stage ended without a message; its log has what it said"
    )


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Copies what this process and its children print to the log, too."""
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
        thread.join(timeout=10)  # a child that outlived its stage may hold the other end


def _copy(reading: int, path: Path, terminal: int) -> None:
    with path.open("ab", buffering=0) as file:
        while part := os.read(reading, 65536):
            for end in (file.fileno(), terminal):
                with suppress(OSError):  # a full disk: who writes to this pipe must not wait for ever
                    os.write(end, part)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
