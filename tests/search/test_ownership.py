"""One driver per study, on any machine: who owns it, who is dead, and what a driver does after losing its study."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import optuna
import pytest

from features.runtime.errors import HeadhuntError, UsageError
from search.driver.ownership import ATTRIBUTE, Driver, Ownership, Patience, owned, read_driver
from search.driver.storage import open_storage

QUICK = Patience(beat=0.01, silence=60, watch=0.2, settle=0.05)
LONG_AGO = "2020-01-02T03:04:05.000+00:00"

Own = Callable[..., AbstractContextManager[Ownership]]


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(storage=open_storage("sqlite", tmp_path), study_name="x")


@pytest.fixture
def own(study: optuna.Study, tmp_path: Path) -> Own:
    return lambda patience=QUICK: owned(study, lambda: open_storage("sqlite", tmp_path), "the storage", patience)


@pytest.fixture
def me(study: optuna.Study, own: Own) -> Driver:
    """The record of a driver in this process, still running as after a kill; it has searched for 100 s."""
    with own():
        record = read_driver(study)
    assert record is not None
    left = record._replace(seconds=100.0, token="another")
    study.set_user_attr(ATTRIBUTE, left._asdict())
    return left


@contextmanager
def beating(records: Iterator[Driver], folder: Path) -> Iterator[None]:
    """Another driver of the study, which writes a record every 50 ms."""
    ended = threading.Event()

    def beat() -> None:
        study = optuna.load_study(study_name="x", storage=open_storage("sqlite", folder))
        while not ended.wait(0.05):
            study.set_user_attr(ATTRIBUTE, next(records)._asdict())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_second_driver_on_this_machine_is_refused_and_told_whom_to_wait_for(own: Own) -> None:
    said = rf"another search is running the study 'x' in the storage: process {os.getpid()} on .*, since 20.*, last heartbeat "
    with (
        own(),
        pytest.raises(UsageError, match=rf"{said}\d+ s ago. Wait for it, or stop it \(kill {os.getpid()}\)"),
        own(),
    ):
        pass
    with own():  # it has been released
        pass


def test_a_driver_that_was_killed_on_this_machine_is_followed_at_once(
    study: optuna.Study, own: Own, me: Driver
) -> None:
    """Also while it is still a zombie; and its hours count."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        study.set_user_attr(ATTRIBUTE, me._replace(pid=ended.pid)._asdict())
        with own() as ownership:
            assert 100 <= ownership.seconds < 160
    study.set_user_attr(ATTRIBUTE, me._replace(birth="1")._asdict())  # its process id was reused
    with own():
        pass


def test_a_process_that_sleeps_on_this_machine_keeps_its_study(study: optuna.Study, own: Own, me: Driver) -> None:
    study.set_user_attr(ATTRIBUTE, me._replace(beat=LONG_AGO)._asdict())
    with pytest.raises(UsageError, match="another search is running the study"), own():
        pass


def test_a_driver_on_another_machine_is_refused_when_it_is_heard_of(
    study: optuna.Study, own: Own, me: Driver, tmp_path: Path
) -> None:
    away = me._replace(host="elsewhere", place="elsewhere", pid=7)
    study.set_user_attr(ATTRIBUTE, away._asdict())
    beats = (away._replace(seconds=float(seconds)) for seconds in count(101))
    said = r"process 7 on elsewhere, .* Wait for it, or stop it there\.$"
    began = time.monotonic()
    with beating(beats, tmp_path), pytest.raises(UsageError, match=said), own():
        pass
    assert time.monotonic() - began < 50, "a beat is enough"


def test_a_driver_on_another_machine_that_ended_lately_is_waited_for(study: optuna.Study, own: Own, me: Driver) -> None:
    """Only as long as it might be alive, so that a search that lost its machine is resumed elsewhere at once."""
    patience = QUICK._replace(silence=0.5)
    study.set_user_attr(ATTRIBUTE, me._replace(place="elsewhere")._asdict())
    with own(patience) as ownership:
        assert ownership.is_mine(study)


def test_a_driver_on_another_machine_that_fell_silent_is_given_up(
    study: optuna.Study, own: Own, me: Driver, capsys: pytest.CaptureFixture[str]
) -> None:
    study.set_user_attr(ATTRIBUTE, me._replace(place="elsewhere", beat=LONG_AGO)._asdict())
    with own() as ownership:
        assert ownership.is_mine(study)
    said = " ".join(capsys.readouterr().err.split())
    assert "is owned by process" in said and "Watching for 0 s to see whether it is alive." in said


def test_a_driver_whose_clock_is_wrong_is_not_taken_for_dead(
    study: optuna.Study, own: Own, me: Driver, tmp_path: Path
) -> None:
    """Its timestamps are old, but they keep changing."""
    away = me._replace(place="elsewhere", beat=LONG_AGO)
    study.set_user_attr(ATTRIBUTE, away._asdict())
    start = datetime.fromisoformat(LONG_AGO)
    beats = (away._replace(beat=(start + timedelta(seconds=past)).isoformat()) for past in count(1))
    patience = QUICK._replace(watch=40)
    with (
        beating(beats, tmp_path),
        pytest.raises(UsageError, match="another search is running the study"),
        own(patience),
    ):
        pass


def test_a_driver_says_that_it_lives(study: optuna.Study, own: Own) -> None:
    with own() as ownership:
        first = read_driver(study)
        found = threading.Event()
        for _ in range(500):
            if read_driver(study) != first:
                break
            found.wait(0.01)
        else:
            raise AssertionError("no beat in five seconds")
        assert ownership.is_mine(study)
    last = read_driver(study)
    assert first and last and not last.running and last.seconds > first.seconds


def test_a_driver_that_has_lost_its_study_writes_nothing_more(study: optuna.Study, own: Own, me: Driver) -> None:
    study.set_user_attr(ATTRIBUTE, me._replace(running=False)._asdict())
    other = me._replace(host="elsewhere", place="elsewhere", pid=7)
    with (
        pytest.raises(HeadhuntError, match=r"was taken over from this process.*by process 7 on elsewhere"),
        own() as ownership,
    ):
        with ownership.transaction():
            study.ask()
        study.set_user_attr(ATTRIBUTE, other._asdict())
        with ownership.transaction():
            study.ask()
    assert len(study.get_trials()) == 1
    assert read_driver(study) == other


def test_an_interrupt_in_the_middle_of_a_read_does_not_hold_the_release_up(study: optuna.Study, own: Own) -> None:
    """An open read keeps SQLite's lock on the file until it is finished or dropped."""
    database = study._storage._backend  # type: ignore[attr-defined]
    for _ in range(3):
        study.set_user_attr("some", "rows")
        study.set_user_attr("more", "rows")

    def interrupted() -> None:
        session = database.scoped_session()
        rows = session.connection().connection.cursor().execute("select * from study_user_attributes")
        assert rows.fetchone() is not None
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), own(Patience(beat=60)):
        interrupted()
    assert time.monotonic() - began < 20  # SQLite would try for a minute
    left = read_driver(study)
    assert left is not None and not left.running
