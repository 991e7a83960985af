"""The command line as a process, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Headhunt = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def headhunt(tmp_path: Path) -> Headhunt:
    """Runs `headhunt ARGUMENTS` in an empty folder (or in `cwd`)."""

    def run(*arguments: str, cwd: Path = tmp_path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
        return subprocess.run(
            [str(Path(sys.executable).with_name("headhunt")), *arguments],
            cwd=cwd,
            env={**environment, "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
