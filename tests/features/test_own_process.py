"""A function in its own process, which ends with the command that waits for it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from features.runtime.workers.executors import in_own_process

ROOT = Path(__file__).parents[2]

WAITS = """
import signal
from pathlib import Path
from features.runtime.workers.executors import in_own_process
from features.runtime.interrupts import interrupt
from tests.features.test_own_process import stay

if __name__ == "__main__":
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    in_own_process({}, stay, Path("number"))
"""


def stay(file: Path) -> None:
    """Writes its process ID, then never ends by itself."""
    file.with_suffix(".tmp").write_text(str(os.getpid()))
    file.with_suffix(".tmp").rename(file)
    while True:
        time.sleep(0.1)


def variable(name: str) -> str | None:
    return os.environ.get(name)


def is_running(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_has_the_variables_and_gives_the_result() -> None:
    assert in_own_process({"HEADHUNT_TEST": "there"}, variable, "HEADHUNT_TEST") == "there"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_the_command_that_waits_for_it(tmp_path: Path, by: signal.Signals) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = subprocess.Popen(
        [sys.executable, "waits.py"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL, process_group=0
    )
    number = tmp_path / "number"
    while not number.exists():
        assert command.poll() is None
        time.sleep(0.05)
    child = int(number.read_text())
    command.send_signal(by)  # only to the command, as a scheduler does
    assert command.wait(timeout=60) != 0
    ended_by = time.monotonic() + 60
    while is_running(child):
        assert time.monotonic() < ended_by
        time.sleep(0.05)
