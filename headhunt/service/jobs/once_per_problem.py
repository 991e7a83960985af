"""Logs each problem of the service once, however often it recurs."""

from __future__ import annotations

import threading

from features.runtime.log import log


class OncePerProblemLog:
    """Remembers the last message about each subject. Thread-safe."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()

    def log(self, about: str, message: str) -> None:
        """Logs a problem of a subject unless it is the subject's last message; "" clears it once the problem is gone."""
        with self._lock:
            if message and message != self._said.get(about):
                log.print(f"headhunt serve: {message}", style="yellow")
            self._said[about] = message
