"""Shared by all commands: options, messages, exit status.

Progress, logs and errors go to standard error; the result goes to standard output, as one JSON line with `--json`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from features.runtime.atomic import DELETE_FOLDER
from features.runtime.errors import HeadhuntError, LostError
from features.runtime.log import PLAIN, log, relative, shown

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.", metavar="FILE")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", help="Override one key, e.g. search.trials=50. Repeatable.", metavar="KEY.PATH=VALUE"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Workers at a time; default: from the section's `workers`.", metavar="N")
]
ExecutorOption = Annotated[
    Literal["auto", "local", "ray"] | None,
    typer.Option(
        help="Where workers run. auto: processes on this machine, or Ray if a cluster is configured; local: this process; "
        "ray: Ray. Default: from the section's `workers`."
    ),
]
DEFAULT_CONFIG = Path("headhunt.yaml")

INTERRUPTED = 130
"""Exit status of a command stopped by Ctrl-C (128 + SIGINT)."""


class Output:
    """Prints a command's result."""

    def __init__(self, as_json: bool, resume_hint: str | None = None) -> None:
        self.as_json = as_json
        self.is_stage = bool(os.environ.get(IS_STAGE))
        """Whether another command runs this one, and prints what concerns the whole."""
        self.resume_hint = resume_hint
        """Printed after an interrupt or a LostError; default: how to resume with the same command."""
        self.console = Console(stderr=as_json, **PLAIN)
        if not self.console.is_terminal:
            self.console.width = max(self.console.width, 200)  # a file or a pipe has no width to fit tables to

    def result(self, value: dict[str, Any]) -> None:
        """Prints the JSON line if `--json` was given."""
        if self.as_json:
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()


def discard_output() -> None:
    """Sends the rest of standard output, which cannot be written, to nowhere: Python would fail once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


IS_STAGE = "HEADHUNT_IS_STAGE"
"""Environment variable set for a stage that runs under another command."""


@contextmanager
def command(as_json: bool, resume_hint: str | None = None) -> Iterator[Output]:
    """Runs the body of a command and turns exceptions into one message and an exit status.

    0 done; 1 the run failed; 2 the command or the configuration is wrong; 130 interrupted. Any exception other than a
    HeadhuntError, or a folder in place of a file, is a bug in Headhunt: its traceback is printed, followed by a request to report
    it.
    """
    output = Output(as_json, resume_hint)
    try:
        yield output
    except typer.Exit:
        raise
    except HeadhuntError as error:
        log.print(f"headhunt: {error}", style="red")
        if isinstance(error, LostError):
            _log(_resume() if output.resume_hint is None else output.resume_hint)
        raise typer.Exit(error.exit_status) from None
    except KeyboardInterrupt:
        if output.is_stage:  # the command that runs all stages prints how to resume
            pass
        elif output.resume_hint is None:
            _log(f"\nheadhunt: interrupted; finished work is saved. {_resume()}")
        else:
            _log(f"\nheadhunt: interrupted. {output.resume_hint}".rstrip())
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        discard_output()
        raise typer.Exit(1) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise  # headhunt.cli.main prints it
        if isinstance(error, IsADirectoryError) and isinstance(error.filename, str):
            log.print(f"headhunt: {relative(Path(error.filename))} is a folder. {DELETE_FOLDER}", style="red")
            raise typer.Exit(1) from None
        traceback.print_exc()
        log.print(
            f"headhunt: internal error ({type(error).__name__}). This is a bug; please report the traceback above.",
            style="red",
        )
        raise typer.Exit(1) from None


def _resume() -> str:
    return f"Resume with:\n  {shown(sys.argv[1:])}"


def _log(text: str) -> None:
    if text:
        log.print(text)
