"""One stage of the pipeline as a process of its own: the `headhunt` command that a person would type."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import typer

from features.command import log
from features.errors import HeadhuntError


def run_stage(arguments: Sequence[str]) -> Any:
    """Runs `headhunt ARGUMENTS` and gives its JSON object (the arguments ask for it); its exit status becomes ours when it fails.

    The stage is in a process group of its own, so that Ctrl-C reaches it once, from here, and it can save its state.
    `-P` keeps a user's own `train.py` or `search.py` in the working directory from shadowing our packages.
    """
    command_line = [sys.executable, "-P", "-m", "headhunt", *arguments]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True, process_group=0) as stage:
        try:
            printed, _ = stage.communicate()
        except KeyboardInterrupt:
            stage.send_signal(signal.SIGINT)
            stage.communicate()
            raise
    if stage.returncode:
        log.print(f"Mend that, then go on with the same command; this stage alone:\n  headhunt {shlex.join(arguments)}")
        raise typer.Exit(stage.returncode if stage.returncode > 0 else 1)
    lines = printed.splitlines()
    if not lines:
        raise HeadhuntError(f"`headhunt {shlex.join(arguments)}` ended without a result.")
    return json.loads(lines[-1])
