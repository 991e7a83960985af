"""Errors that a person reads: what was received, what is allowed, what to do next.

HeadhuntError              the run failed (exit status 1)
├── LostError              something that the run stands on went away; the same command goes on (exit status 1)
│   └── DeadWorkersError   a task took one worker after the other down with it (exit status 1)
├── UsageError             the command or the configuration is wrong (exit status 2)
├── DatasetError           the photos or their annotations are wrong (exit status 2)
└── CacheError             a feature cache is missing, damaged, or another than the configuration's (exit status 1)
"""

from __future__ import annotations

from collections.abc import Sequence


def some(texts: Sequence[object], between: str = ", ", shown: int = 5) -> str:
    """The first of many things that a message is about, and how many more there are."""
    more = f" and {len(texts) - shown} more" if len(texts) > shown else ""
    return between.join(map(str, texts[:shown])) + more


class HeadhuntError(Exception):
    """A failure with a message for the person at the terminal; never shown with a traceback."""

    exit_status = 1


class LostError(HeadhuntError):
    """A cluster, a worker or a storage went away in the middle of a run. Finished work is saved: the same command goes on."""


class DeadWorkersError(LostError):
    """A task whose worker died, and every worker that it was given to after that."""


class UsageError(HeadhuntError):
    """The command line or the configuration is wrong; nothing was run."""

    exit_status = 2


class DatasetError(HeadhuntError):
    """The data set on disk is not what the configuration says it is."""

    exit_status = 2


class CacheError(HeadhuntError):
    """A feature cache cannot be trusted or found."""
