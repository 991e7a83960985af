"""Interrupts: what Ctrl-C does to a command, and how a long task in this process learns that nobody waits for it any more."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

LEFT = threading.Event()
"""Set while a local executor that was left early waits for its threads."""

_INTERRUPTED = threading.Event()


class _Held:
    """How deep the main thread is in what an interrupt must not cut short, and whether one waits for its end."""

    depth = 0
    waits = False


def interrupt(signal_number: int, frame: object) -> None:
    """Handles SIGINT, SIGTERM and SIGHUP for a command: KeyboardInterrupt, here and at the next `raise_if_cancelled`.

    Python drops an exception that a handler raises inside a callback of the garbage collector; JAX has one, and a search spends
    much of its time there. Between `hold` and `release` it waits for the latter; a second one does not.
    """
    again = _INTERRUPTED.is_set()
    _INTERRUPTED.set()
    _Held.waits = bool(_Held.depth) and not again
    if not _Held.waits:
        raise KeyboardInterrupt


def hold() -> None:
    """Here begins what an interrupt must not cut short: a transaction, which would keep the database locked against ourselves."""
    if threading.current_thread() is threading.main_thread():
        _Held.depth += 1


def release() -> None:
    """Here ends what `hold` began. Raises KeyboardInterrupt where one came meanwhile."""
    if threading.current_thread() is threading.main_thread():
        _Held.depth = max(0, _Held.depth - 1)
        if _Held.waits and not _Held.depth:
            _Held.waits = False
            raise KeyboardInterrupt


def raise_if_cancelled() -> None:
    """For a long task in this process to call now and then, and a no-op in workers of their own.

    Raises CancelledError when nobody waits for its result any more: a thread cannot be ended from outside. KeyboardInterrupt
    after an interrupt.
    """
    if LEFT.is_set():
        raise CancelledError
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt
