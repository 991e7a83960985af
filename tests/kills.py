"""Shared by the kill tests: the seed of their random moments, and the processes that they may kill."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

SEED = int(os.environ.get("HEADHUNT_KILL_SEED", str(random.SystemRandom().randrange(10**6))))
"""Printed by every test; set the variable to reproduce one."""


def descendants(process: int) -> Iterator[tuple[int, str]]:
    """The PIDs and command lines of a process's descendants."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(status.read_text().rpartition(")")[2].split()[1]), []).append(
                int(status.parent.name)
            )
        except OSError:
            continue
    waiting = list(parents.get(process, []))
    while waiting:
        child = waiting.pop()
        waiting += parents.get(child, [])
        try:
            yield child, Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
