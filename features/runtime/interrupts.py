"""Interrupts: how a command handles Ctrl-C, and how a long task in this process notices that it was cancelled."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

LEFT = threading.Event()
"""Set while a local executor whose iteration was left early waits for its threads."""

_INTERRUPTED = threading.Event()


class _Held:
    """Nesting depth of uninterruptible sections in the main thread, and whether an interrupt is pending."""

    depth = 0
    waits = False


def interrupt(signal_number: int, frame: object) -> None:
    """Handles SIGINT, SIGTERM and SIGHUP for a command: raises KeyboardInterrupt, here and at the next `raise_if_cancelled`.

    The second raise is needed because Python drops an exception raised inside a garbage-collector callback; JAX has such a
    callback, and a search spends much of its time there. Between `hold` and `release`, the first interrupt is deferred to
    `release`; a second one is not.
    """
    again = _INTERRUPTED.is_set()
    _INTERRUPTED.set()
    _Held.waits = bool(_Held.depth) and not again
    if not _Held.waits:
        raise KeyboardInterrupt


def hold() -> None:
    """Begins an uninterruptible section: a transaction cut short would keep the database locked against ourselves."""
    if threading.current_thread() is threading.main_thread():
        _Held.depth += 1


def release() -> None:
    """Ends the section that `hold` began. Raises KeyboardInterrupt if an interrupt arrived meanwhile."""
    if threading.current_thread() is threading.main_thread():
        _Held.depth = max(0, _Held.depth - 1)
        if _Held.waits and not _Held.depth:
            _Held.waits = False
            raise KeyboardInterrupt


def raise_if_cancelled() -> None:
    """Called regularly by long tasks; does nothing in a worker process.

    Raises CancelledError when the result is no longer needed (a thread cannot be killed from outside), KeyboardInterrupt after an
    interrupt.
    """
    if LEFT.is_set():
        raise CancelledError
    if _INTERRUPTED.is_set():
        raise KeyboardInterrupt
