"""Which process this is, so that another one can tell whether it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process: `place` is where its number means something, `birth` tells it from a later one with that number."""

    host: str
    pid: int
    place: str
    birth: str


def this_process() -> Process:
    """This one."""
    return Process(socket.gethostname(), os.getpid(), _place(), birth(os.getpid()))


def _place() -> str:
    """Where process numbers are those of this process: the boot of the machine, and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def birth(pid: int) -> str:
    """When a process began, in ticks since the boot; "" when there is no such process, or only its remains."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _by_signal(pid)
    return "" if state in "ZX" else fields[18]


def _by_signal(pid: int) -> str:
    """The same where there is no /proc, without the time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
