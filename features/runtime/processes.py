"""Identifies a process, so that another one can tell whether it is still alive."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process. `place` is the scope in which `pid` is unique; `birth` distinguishes it from later processes with that `pid`."""

    host: str
    pid: int
    place: str
    birth: str


def this_process() -> Process:
    """The current process."""
    return Process(socket.gethostname(), os.getpid(), _place(), birth(os.getpid()))


def _place() -> str:
    """The scope of this process's ID: the machine's boot and the PID namespace (container)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def birth(pid: int) -> str:
    """When a process started, in clock ticks since boot; "" when there is no such process or it is a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _alive_by_signal(pid)
    return "" if state in "ZX" else fields[18]


def _alive_by_signal(pid: int) -> str:
    """`birth` on systems without /proc: "alive" instead of the time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
