"""Who drives a study: one process at a time, wherever it runs, by a record in the study's own storage.

The study's user attribute `driver` says which process on which machine drives it, and when that was last heard of: a thread
renews it. A process of this machine that is gone is known to be gone at once, so that a killed search goes on without waiting. A
driver on another machine is given up for dead when its record stands still while the newcomer watches it: the clocks of two
machines need not agree. Every write of a driver first makes sure that the study is still its own.
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
    """How often a driver says that it lives, and when it is given up, in seconds."""

    beat: float = 10
    silence: float = 60
    """A driver on another machine lives for so long after it was heard of, whatever becomes of its record."""
    watch: float = 25
    """For so long more its record must stand still before another takes the study over."""
    settle: float = 0.5
    """Where a storage has no transactions: how long a newcomer waits to see whether another one wrote its name over his."""


class Driver(NamedTuple):
    """The record: a process, and how long all drivers of the study have searched; times are UTC, in ISO 8601.

    `place` is where a process number means something: the machine's boot and the container. `birth` tells the process from
    a later one with its number, `token` a driver from every other one.
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
        """What stays the same from beat to beat, and differs from every other driver's."""
        return self.token, self.place, self.pid, self.running


def read_driver(study: optuna.Study) -> Driver | None:
    """The record of the study's driver, also of one that has ended; None before the first."""
    found = storage_of(study).get_study_user_attrs(study_id(study)).get(ATTRIBUTE)
    return Driver(**found) if found else None


class Ownership:
    """The right of this process to drive a study, from `owned`."""

    def __init__(self, study: optuna.Study, shown: str, patience: Patience) -> None:
        self._study, self._shown, self._patience = study, shown, patience
        self._began, self._started = time.monotonic(), _now()
        self._before, self._token = 0.0, secrets.token_hex(8)

    @property
    def seconds(self) -> float:
        """How long this driver and all before it have searched."""
        return self._before + time.monotonic() - self._began

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """`one_transaction` of the owner; HeadhuntError, and nothing is written, when another process has taken the study."""
        with one_transaction(storage_of(self._study), study_id(self._study)):
            self._check()
            yield

    def claim(self) -> None:
        """Takes the study; UsageError when a driver that lives has it."""
        seen = read_driver(self._study)
        if seen and self._is_held(seen):
            raise UsageError(self._refusal(seen))
        with one_transaction(storage_of(self._study), study_id(self._study)):
            now = read_driver(self._study)
            if now and now != seen and now.running:  # another newcomer was quicker
                raise UsageError(self._refusal(now))
            self._before = now.seconds if now else 0.0
            self.write(self._study)
        if not has_transactions(storage_of(self._study)):
            time.sleep(self._patience.settle)
            self._check()

    def is_mine(self, study: optuna.Study) -> bool:
        """Whether the record in the storage is still this driver's."""
        found = read_driver(study)
        return found is not None and found.signature == self._record().signature

    def write(self, study: optuna.Study, running: bool = True) -> None:
        """Writes the record anew, with the time of now."""
        study.set_user_attr(ATTRIBUTE, self._record(running)._asdict())

    def release(self, in_the_middle: bool = False) -> None:
        """Domains the study to the next driver; `in_the_middle` of a generation, its trials wait for that one."""
        with one_transaction(storage_of(self._study), study_id(self._study)):
            if self.is_mine(self._study):
                if in_the_middle:
                    set_aside(self._study)
                self.write(self._study, running=False)

    def _record(self, running: bool = True) -> Driver:
        return Driver(*this_process(), self._started, _now(), round(self.seconds, 3), running, self._token)

    def _check(self) -> None:
        if self.is_mine(self._study):
            return
        now = read_driver(self._study)
        raise HeadhuntError(
            f"the study {self._study.study_name!r} in {self._shown} was taken from this process, which was silent for too "
            f"long (asleep, or cut off from the storage), by {_who(now) if now else 'none'}. That search goes on with what was "
            "written; here is nothing left to do."
        )

    def _is_held(self, driver: Driver) -> bool:
        """Whether the driver lives; one on another machine is watched for as long as it takes to be sure."""
        if not driver.running:
            return False
        if driver.place == this_process().place:
            return birth(driver.pid) == driver.birth
        seconds = self._patience.watch + max(0.0, self._patience.silence - abs(_age(driver)))
        log.print(
            f"The study {self._study.study_name!r} belongs to {_who(driver)}. Watching for {seconds:.0f} s to see "
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
        return f"another search drives the study {self._study.study_name!r} in {self._shown}: {_who(driver)}. {advice}"


@contextmanager
def owned(
    study: optuna.Study,
    open_again: Callable[[], optuna.storages.BaseStorage],
    shown: str,
    patience: Patience = Patience(),
) -> Iterator[Ownership]:
    """Makes this process the study's driver for the block; UsageError when another one is.

    However the block ends, no trial of the study is running after it, unless the storage is gone or this process is killed.
    `open_again` opens the storage once more, for the thread that says that this driver lives. `shown` names it in messages.
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
        with suppress(Exception):  # the fault that ends the search is the one to show
            release_read_locks(storage_of(study), error)
            ownership.release(in_the_middle=True)
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
    """Renews the record until the search ends. A beat that fails is left out: the driver itself will meet the fault."""
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
    """Seconds since the last beat, by this machine's clock."""
    return (datetime.now(UTC) - datetime.fromisoformat(driver.beat)).total_seconds()


def _who(driver: Driver) -> str:
    since = driver.started.replace("T", " ")[:19]
    return f"process {driver.pid} on {driver.host}, since {since} UTC, last heard of {max(0.0, _age(driver)):.0f} s ago"
