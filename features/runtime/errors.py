"""User-facing errors. A message says what was received, what is allowed and what to do next.

HeadhuntError              the run failed (exit status 1)
├── LostError              the run lost its cluster, a worker or its storage; rerun the same command (exit status 1)
│   └── DeadWorkersError   a task crashed every worker that ran it (exit status 1)
├── UsageError             the command or the configuration is wrong (exit status 2)
├── DatasetError           the photos or their annotations are wrong (exit status 2)
└── CacheError             the feature cache is missing, damaged or does not match the configuration (exit status 1)
"""

from __future__ import annotations

from collections.abc import Sequence


def some(texts: Sequence[object], between: str = ", ", shown: int = 5) -> str:
    """The first `shown` items joined by `between`, and how many more there are."""
    more = f" and {len(texts) - shown} more" if len(texts) > shown else ""
    return between.join(map(str, texts[:shown])) + more


class HeadhuntError(Exception):
    """A failure with a message for the user, shown without a traceback."""

    exit_status = 1


class LostError(HeadhuntError):
    """The run lost its cluster, a worker or its storage. Finished work is saved; rerunning the same command resumes it."""


class DeadWorkersError(LostError):
    """A task's worker died, and so did every worker that retried it."""


class UsageError(HeadhuntError):
    """The command line or the configuration is wrong; nothing was run."""

    exit_status = 2


class DatasetError(HeadhuntError):
    """The data set on disk does not match the configuration."""

    exit_status = 2


class CacheError(HeadhuntError):
    """A feature cache is missing, damaged or does not match the configuration."""
