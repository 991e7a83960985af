"""What is wrong, said once in the service's log, however often it is met."""

from __future__ import annotations

import threading

from features.runtime.log import log


class OncePerProblemLog:
    """The last thing that was said about each thing; any thread may complain."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()

    def log(self, about: str, message: str) -> None:
        """Says what is wrong with it, unless that was the last thing said; "" when nothing is any more."""
        with self._lock:
            if message and message != self._said.get(about):
                log.print(f"headhunt serve: {message}", style="yellow")
            self._said[about] = message
