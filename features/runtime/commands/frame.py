"""The frame of every command: its options, its messages, its exit status.

Progress, logs and errors go to standard error; a result goes to standard output, as one JSON line with `--json`.
"""

from __future__ import annotations

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

from features.runtime.errors import HeadhuntError, LostError
from features.runtime.log import PLAIN, log, shown

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.", metavar="FILE")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", help="Override one key, e.g. search.trials=50. Repeatable.", metavar="KEY.PATH=VALUE"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Workers at a time; default: as the section's `workers` says.", metavar="N")
]
ExecutorOption = Annotated[
    Literal["auto", "local", "ray"] | None,
    typer.Option(
        help="Where they run: processes of this machine (or Ray, where a cluster is named), this process, or Ray; default: as "
        "the section's `workers` says."
    ),
]
DEFAULT_CONFIG = Path("headhunt.yaml")

INTERRUPTED = 130
"""Exit status of a command stopped by Ctrl-C (128 + SIGINT)."""


class Output:
    """What a command has to say at its end."""

    def __init__(self, as_json: bool, afterwards: str | None = None) -> None:
        self.as_json = as_json
        self.afterwards = afterwards
        """What is said when it is interrupted or loses what it stands on; default: that the same command goes on."""
        self.console = Console(stderr=as_json, **PLAIN)
        if not self.console.is_terminal:
            self.console.width = max(self.console.width, 200)  # a file or a pipe has no edge to fit tables to

    def result(self, value: dict[str, Any]) -> None:
        """Prints the JSON line where it was asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(value) + "\n")
            sys.stdout.flush()


IS_STAGE = "HEADHUNT_IS_STAGE"
"""Environment variable of a stage that another command runs."""


@contextmanager
def command(as_json: bool, afterwards: str | None = None) -> Iterator[Output]:
    """Runs the body of a command and turns what goes wrong into one message and an exit status.

    0 done; 1 the run failed; 2 the command or the configuration is wrong; 130 interrupted. A fault of our own (any
    exception that is not a HeadhuntError) keeps its traceback, and a line says so.
    """
    output = Output(as_json, afterwards)
    try:
        yield output
    except typer.Exit:
        raise
    except HeadhuntError as error:
        log.print(f"headhunt: {error}", style="red")
        if isinstance(error, LostError):
            _say(_resume() if output.afterwards is None else output.afterwards)
        raise typer.Exit(error.exit_status) from None
    except KeyboardInterrupt:
        if os.environ.get(IS_STAGE):  # the command that runs all stages says how to go on
            pass
        elif output.afterwards is None:
            _say(f"\nheadhunt: interrupted; finished work is saved. {_resume()}")
        else:
            _say(f"\nheadhunt: interrupted. {output.afterwards}".rstrip())
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        traceback.print_exc()
        log.print(
            f"headhunt: a fault in headhunt itself ({type(error).__name__}); please report the traceback above.",
            style="red",
        )
        raise typer.Exit(1) from None


def _resume() -> str:
    return f"Resume with:\n  {shown(sys.argv[1:])}"


def _say(text: str) -> None:
    if text:
        log.print(text)
