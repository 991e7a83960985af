"""An interrupt in the middle of a transaction does not leave the database locked, so that the state can still be saved."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import event

from features.runtime import interrupts
from features.runtime.interrupts import hold, interrupt, release
from search.driver.storage import _database, open_storage


@pytest.fixture(autouse=True)
def uninterrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_INTERRUPTED", threading.Event())


def test_it_waits_for_the_end_of_the_transaction(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db", tmp_path)
    study = optuna.create_study(storage=storage, study_name="x")
    database, came = _database(storage), []

    def interrupted(*_: Any) -> None:
        if not came:
            came.append(True)
            interrupt(signal.SIGINT, None)

    assert database is not None
    event.listen(database.engine, "after_cursor_execute", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        study.set_user_attr("first", 1)
    study.set_user_attr("second", 2)  # while the frames of the first are alive
    assert caught.value is not None
    again = optuna.load_study(study_name="x", storage=open_storage(f"sqlite:///{tmp_path}/study.db", tmp_path))
    assert again.user_attrs == {"first": 1, "second": 2}


def test_a_second_one_does_not_wait() -> None:
    hold()
    hold()
    interrupt(signal.SIGINT, None)
    release()
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGINT, None)
    release()


def test_it_is_raised_once() -> None:
    hold()
    interrupt(signal.SIGTERM, None)
    with pytest.raises(KeyboardInterrupt):
        release()
    hold()
    release()
