"""A job that is waited for: what it says, and its end. The service may be started anew meanwhile."""

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
"""Before each attempt to reach a service that answered before; together the time that one takes to start, and more."""

QUIET_SECONDS = 20
"""A connection that lasted longer was a good one."""


def say(client: Client, name: str, job: int) -> Iterator[bytes]:
    """What a job says until it is over, piece by piece and each byte once. LostError when the service stays away."""
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
            if time.monotonic() - began > QUIET_SECONDS:  # a connection that a proxy cut, since the job said nothing
                patience.renew()
            patience.wait(error)


def over(client: Client, name: str, job: int) -> SearchStatus:
    """How a search stands when its job of this number is over. LostError when the service stays away."""
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
    """The search's job of this number."""
    return next(job for job in status.jobs if job.number == number)


class _Patience:
    """With a service that does not answer any more."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """It answered."""
        self._left = list(PAUSES_SECONDS)

    def wait(self, error: LostError) -> None:
        """Until it is asked again; raises the error when that was often enough."""
        if not self._left:
            raise error
        if len(self._left) == len(PAUSES_SECONDS):
            log.print(f"{error} Trying again …", style="yellow")
        time.sleep(self._left.pop(0))
