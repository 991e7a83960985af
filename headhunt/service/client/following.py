"""Follows a job: its log, and its end. Survives a restart of the service meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator

from features.runtime.errors import LostError
from features.runtime.log import log
from headhunt.service.board.schemas import JobStatus, SearchStatus
from headhunt.service.client.client import Client
from headhunt.service.jobs.records import ACTIVE

LOOK_SECONDS = 0.5

PAUSES_SECONDS = (1, 2, 4, 8, 15, 15, 15)
"""Pause before each attempt to reconnect to the service; the total exceeds the time that a service takes to start."""

QUIET_SECONDS = 20
"""A connection that lasted longer than this resets the retries."""


def stream_log(client: Client, name: str, job: int) -> Iterator[bytes]:
    """Streams a job's log until the job ends, each byte once. LostError if the service does not come back."""
    given, patience = 0, _Patience()
    while True:
        at, began = 0, time.monotonic()
        try:
            for piece in client.logs(name, job, follow=True):
                fresh = piece[max(0, given - at) :]
                at += len(piece)
                if fresh:
                    given = at
                    patience.renew()
                    yield fresh
            return
        except LostError as error:
            if time.monotonic() - began > QUIET_SECONDS:  # a proxy cut an idle connection
                patience.renew()
            patience.wait(error)


def wait_until_ended(client: Client, name: str, job: int) -> SearchStatus:
    """Waits for the search's job with this number to end and returns the status. LostError if the service does not come back."""
    patience = _Patience()
    while True:
        try:
            status = client.search(name)
        except LostError as error:
            patience.wait(error)
            continue
        patience.renew()
        if job_of(status, job).state not in ACTIVE:
            return status
        time.sleep(LOOK_SECONDS)


def job_of(status: SearchStatus, number: int) -> JobStatus:
    """The search's job with this number."""
    return next(job for job in status.jobs if job.number == number)


class _Patience:
    """Retry pauses for a service that stopped answering."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Starts over: the service answered."""
        self._left = list(PAUSES_SECONDS)

    def wait(self, error: LostError) -> None:
        """Sleeps before the next attempt; raises the error when no attempts are left."""
        if not self._left:
            raise error
        if len(self._left) == len(PAUSES_SECONDS):
            log.print(f"{error} Retrying …", style="yellow")
        time.sleep(self._left.pop(0))
