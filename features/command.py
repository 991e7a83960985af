"""The frame of every command: its options, its messages, its exit status.

Progress, logs and errors go to standard error; a result goes to standard output, as one JSON line with `--json`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from features.config import FeaturesRun
from features.configfile import load
from features.errors import HeadhuntError, LostError

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.", metavar="FILE")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", help="Override one key, e.g. search.trials=50. Repeatable.", metavar="KEY.PATH=VALUE"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
DEFAULT_CONFIG = Path("headhunt.yaml")

INTERRUPTED = 130
"""Exit status of a command stopped by Ctrl-C (128 + SIGINT)."""

PLAIN: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False, "emoji": False}
"""Text is printed as it is: paths, classes and commands hold brackets and colons that Rich would take for its own."""

log = Console(stderr=True, **PLAIN)
"""Where progress, warnings and errors are written."""

R = TypeVar("R", bound=FeaturesRun)


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
            _say(f"\nheadhunt: interrupted; what is finished is saved. {_resume()}")
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


def settings(context: typer.Context, model: type[R], file: Path, overrides: Sequence[str]) -> R:
    """Loads the configuration for a stage.

    Under the joined command `headhunt`, whose root puts the whole file's model into `context.obj`, every section is
    checked, also those of later stages; a stage's app by itself checks the sections up to its own.
    """
    whole = context.obj if isinstance(context.obj, type) and issubclass(context.obj, model) else model
    return load(whole, file, overrides)


def relative(path: Path) -> str:
    """A path as it is printed: relative to the working directory."""
    return os.path.relpath(path)


def without_password(url: str) -> str:
    """A URL, or a text with URLs in it, as it may be printed or logged."""
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", re.sub(r"(://[^:/@\s]*:)\S*@", r"\1***@", url))


def shown(words: Sequence[str]) -> str:
    """A command with these words, as a shell takes it and as it may be printed."""
    return without_password(shlex.join(["headhunt", *words]))


def _resume() -> str:
    return f"Resume with:\n  {shown(sys.argv[1:])}"


def _say(text: str) -> None:
    if text:
        log.print(text)
