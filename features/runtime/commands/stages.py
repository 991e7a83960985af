"""Runs one stage of the pipeline in its own process, as the `headhunt` command that a user would type."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import typer

from features.runtime.commands.frame import INTERRUPTED, IS_STAGE
from features.runtime.errors import HeadhuntError
from features.runtime.interrupts import raise_if_cancelled
from features.runtime.log import log


def run_stage(arguments: Sequence[str]) -> Any:
    """Runs `headhunt ARGUMENTS` and returns its JSON object (`arguments` must contain `--json`). If it fails, exits with its
    status.

    The stage has its own process group, so that Ctrl-C reaches it once, from here, and it can save its state. On Linux it is
    killed when this process ends. `-P` keeps a user's `train.py` or `search.py` in the working directory from shadowing our
    packages.
    """
    command_line = [sys.executable, "-P", "-m", "headhunt", *arguments]
    options: dict[str, Any] = {"preexec_fn": end_with_parent} if sys.platform == "linux" else {}
    environment = {**os.environ, IS_STAGE: "1"}
    # Python drops a SIGINT that arrives while it forks, so it stays blocked until the stage has started. The stage inherits the
    # blocked signal and handles it after its imports.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        started = subprocess.Popen(
            command_line, stdout=subprocess.PIPE, text=True, process_group=0, env=environment, **options
        )
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    with started as stage:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            raise_if_cancelled()
            printed, _ = stage.communicate()
        except KeyboardInterrupt:
            stage.send_signal(signal.SIGINT)
            stage.communicate()
            raise
    if stage.returncode < 0:
        killed = signal.Signals(-stage.returncode).name
        log.print(
            f"headhunt: the process of this stage was killed by {killed}. The system does this when memory runs out, for example."
        )
    if stage.returncode == INTERRUPTED:
        log.print("headhunt: this stage was interrupted; finished work is saved. Rerun the same command.")
    elif stage.returncode:
        asked = [word for word in arguments if word != "--json"]  # which the caller added
        log.print(f"Fix this, then rerun the same command. To rerun only this stage:\n  headhunt {shlex.join(asked)}")
    if stage.returncode:
        raise typer.Exit(stage.returncode if stage.returncode > 0 else 1)
    lines = printed.splitlines()
    if not lines:
        raise HeadhuntError(f"`headhunt {shlex.join(arguments)}` printed no result.")
    return json.loads(lines[-1])


_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def end_with_parent() -> None:
    """Makes the kernel kill this process when its parent ends (Linux). Called in the child."""
    _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


_prctl: Any = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
