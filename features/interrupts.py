"""Interrupts: what Ctrl-C does to a command, and how a long task in this process learns that nobody waits for it any more."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

LEFT = threading.Event()
"""Set while a local executor that was left early waits for its threads."""

_INTERRUPTED = threading.Event()


def interrupt(signal_number: int, frame: object) -> None:
    """Handles SIGINT, SIGTERM and SIGHUP for a command: KeyboardInterrupt, here and at the next `check_wanted`.

    Python drops an exception that a handler raises inside a callback of the garbage collector; JAX has one, and a search spends
    much of its time there.
    """
    _INTERRUPTED.set()
    raise KeyboardInterrupt


def check_wanted() -> None:
    """For a long task in this process to call now and then, and a no-op in workers of their own.

    Raises CancelledError when nobody waits for its result any more: a thread cannot be ended from outside. KeyboardInterrupt
    after an interrupt.
    """
    if LEFT.is_set():
        raise CancelledError
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt
