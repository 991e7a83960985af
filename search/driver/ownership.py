"""Ownership of a study: one driver process at a time, on any machine, recorded in the study's own storage.

The study's user attribute `driver` names the process and machine that drive it and its last heartbeat, which a thread renews. A
dead process on this machine is detected at once, so that a killed search resumes without waiting. A driver on another machine is
considered dead when its record does not change while the newcomer watches it; the two machines' clocks need not agree. Before
every write, a driver checks that it still owns the study.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import log
from features.runtime.processes import birth, this_process
from search.driver.set_aside import set_aside
from search.driver.storage import has_transactions, one_transaction, release_read_locks
from search.optuna_internals import storage_of, study_id

if TYPE_CHECKING:
    import optuna

ATTRIBUTE = "driver"


class Patience(NamedTuple):
    """Heartbeat interval and timeouts of a driver, in seconds."""

    beat: float = 10
    silence: float = 60
    """How long a driver on another machine counts as alive after its last heartbeat."""
    watch: float = 25
    """How much longer its record must stay unchanged before another driver takes over the study."""
    settle: float = 0.5
    """For storages without transactions: how long a newcomer waits to see whether another one overwrote its record."""


class Driver(NamedTuple):
    """The record: a process, and how long all drivers of the study have searched so far; times are UTC in ISO 8601.

    `place` is the scope of a process id: the machine's boot and the container. `birth` distinguishes the process from a later one
    with the same id, `token` a driver from every other one.
    """

    host: str
    pid: int
    place: str
    birth: str
    started: str
    beat: str
    seconds: float
    running: bool
    token: str

    @property
    def signature(self) -> tuple[str, str, int, bool]:
        """What stays the same between heartbeats and differs from every other driver's."""
        return self.token, self.place, self.pid, self.running


def read_driver(study: optuna.Study) -> Driver | None:
    """The record of the study's current or last driver; None before the first."""
    found = storage_of(study).get_study_user_attrs(study_id(study)).get(ATTRIBUTE)
    return Driver(**found) if found else None


class Ownership:
    """This process's ownership of a study, from `owned`."""

    def __init__(self, study: optuna.Study, shown: str, patience: Patience) -> None:
        self._study, self._shown, self._patience = study, shown, patience
        self._began, self._started = time.monotonic(), _now()
        self._before, self._token = 0.0, secrets.token_hex(8)

    @property
    def seconds(self) -> float:
        """How long this driver and all before it have searched, in seconds."""
        return self._before + time.monotonic() - self._began

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """`one_transaction` for the owner; HeadhuntError, with nothing written, if another process has taken over the study."""
        with one_transaction(storage_of(self._study), study_id(self._study)):
            self._check()
            yield

    def claim(self) -> None:
        """Takes ownership of the study; UsageError if a live driver owns it."""
        seen = read_driver(self._study)
        if seen and self._is_held(seen):
            raise UsageError(self._refusal(seen))
        with one_transaction(storage_of(self._study), study_id(self._study)):
            now = read_driver(self._study)
            if now and now != seen and now.running:  # another newcomer was faster
                raise UsageError(self._refusal(now))
            self._before = now.seconds if now else 0.0
            self.write(self._study)
        if not has_transactions(storage_of(self._study)):
            time.sleep(self._patience.settle)
            self._check()

    def is_mine(self, study: optuna.Study) -> bool:
        """Whether the stored record is still this driver's."""
        found = read_driver(study)
        return found is not None and found.signature == self._record().signature

    def write(self, study: optuna.Study, running: bool = True) -> None:
        """Writes the record with the current time."""
        study.set_user_attr(ATTRIBUTE, self._record(running)._asdict())

    def release(self, interrupted: bool = False) -> None:
        """Releases the study for the next driver; `interrupted` of a generation, its running trials are set to WAITING."""
        with one_transaction(storage_of(self._study), study_id(self._study)):
            if self.is_mine(self._study):
                if interrupted:
                    set_aside(self._study)
                self.write(self._study, running=False)

    def _record(self, running: bool = True) -> Driver:
        return Driver(*this_process(), self._started, _now(), round(self.seconds, 3), running, self._token)

    def _check(self) -> None:
        if self.is_mine(self._study):
            return
        now = read_driver(self._study)
        raise HeadhuntError(
            f"the study {self._study.study_name!r} in {self._shown} was taken over from this process, which sent no heartbeat "
            f"for too long (asleep, or cut off from the storage), by {_describe_driver(now) if now else 'nobody'}. That "
            "search continues from what was written; nothing is left to do here."
        )

    def _is_held(self, driver: Driver) -> bool:
        """Whether the driver is alive; one on another machine is watched for as long as it takes to be sure."""
        if not driver.running:
            return False
        if driver.place == this_process().place:
            return birth(driver.pid) == driver.birth
        seconds = self._patience.watch + max(0.0, self._patience.silence - abs(_age(driver)))
        log.print(
            f"The study {self._study.study_name!r} is owned by {_describe_driver(driver)}. Watching for {seconds:.0f} s to see "
            "whether it is alive."
        )
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(self._patience.watch / 20)
            if read_driver(self._study) != driver:
                return True
        return False

    def _refusal(self, driver: Driver) -> str:
        advice = f"Wait for it, or stop it (kill {driver.pid})."
        if driver.place != this_process().place:
            advice = "Wait for it, or stop it there."
        return (
            f"another search is running the study {self._study.study_name!r} in {self._shown}: {_describe_driver(driver)}. "
            f"{advice}"
        )


@contextmanager
def owned(
    study: optuna.Study,
    open_again: Callable[[], optuna.storages.BaseStorage],
    shown: str,
    patience: Patience = Patience(),
) -> Iterator[Ownership]:
    """Makes this process the study's driver inside the block; UsageError if another one is alive.

    However the block ends, no trial of the study is left running, unless the storage is gone or this process is killed.
    `open_again` opens the storage a second time, for the heartbeat thread. `shown` names the storage in messages.
    """
    ownership = Ownership(study, shown, patience)
    ownership.claim()
    ended = threading.Event()
    arguments = (ownership, study.study_name, open_again, patience.beat, ended)
    thread = threading.Thread(target=_beat, args=arguments, name="driver", daemon=True)
    thread.start()
    try:
        yield ownership
    except BaseException as error:
        ended.set()
        with suppress(Exception):  # show the error that ended the search, not one raised here
            release_read_locks(storage_of(study), error)
            ownership.release(interrupted=True)
        raise
    ended.set()
    thread.join(patience.beat)
    ownership.release()


def _beat(
    ownership: Ownership,
    name: str,
    open_again: Callable[[], optuna.storages.BaseStorage],
    seconds: float,
    ended: threading.Event,
) -> None:
    """Renews the record until the search ends. A failed heartbeat is skipped: the driver itself will hit the same error."""
    import optuna

    study = None
    while not ended.wait(seconds):
        with suppress(Exception):
            study = study or optuna.load_study(study_name=name, storage=open_again())
            with one_transaction(storage_of(study), study_id(study)):
                if not ownership.is_mine(study):
                    return
                if not ended.is_set():
                    ownership.write(study)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _age(driver: Driver) -> float:
    """Seconds since the last heartbeat, by this machine's clock."""
    return (datetime.now(UTC) - datetime.fromisoformat(driver.beat)).total_seconds()


def _describe_driver(driver: Driver) -> str:
    since = driver.started.replace("T", " ")[:19]
    return (
        f"process {driver.pid} on {driver.host}, since {since} UTC, last heartbeat {max(0.0, _age(driver)):.0f} s ago"
    )
