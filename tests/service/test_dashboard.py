"""The dashboard of a long-running service: it shows every study correctly, and keeps the trials of only a few."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import optuna
import pytest

from headhunt.service.http.dashboard import KEPT_STUDIES
from search.driver.storage import open_storage
from tests.service.stand_in import Place, eventually

STUDIES, TRIALS = 3 * KEPT_STUDIES, 5


def trials_in_memory() -> int:
    gc.collect()
    return sum(isinstance(one, optuna.trial.FrozenTrial) for one in gc.get_objects())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A service whose storage has STUDIES studies of TRIALS trials; their values encode both numbers."""
    place = Place(tmp_path)
    storage = open_storage(place.settings.storage_url, tmp_path)
    for number in range(STUDIES):
        study = optuna.create_study(study_name=f"study {number}", storage=storage, direction="maximize")
        study.add_trials([optuna.trial.create_trial(value=100 * number + trial) for trial in range(TRIALS)])
    return place


def shown(place: Place, number: int) -> list[float]:
    """The values of a study's trials, as on its page."""
    answer = place.http.get(f"/api/studies/{number + 1}?after=0")
    assert answer.status_code == 200, answer.text
    assert answer.json()["name"] == f"study {number}"
    return [value for trial in answer.json()["trials"] for value in trial["values"]]


def values(number: int) -> list[float]:
    return [100 * number + trial for trial in range(TRIALS)]


def test_the_trials_of_few_studies_are_kept(place: Place) -> None:
    before = trials_in_memory()
    looked, ended = [0], threading.Event()

    def look_on() -> None:
        while not ended.is_set() and shown(place, 0) == values(0):
            looked[0] += 1

    looking = threading.Thread(target=look_on)
    looking.start()
    for number in range(1, STUDIES):
        assert shown(place, number) == values(number)
        assert place.http.get(f"/csv/{number + 1}").text.count("COMPLETE") == TRIALS
        assert len(place.http.get("/api/studies").json()["study_summaries"]) == STUDIES
    eventually(lambda: looked[0] > 0, 60)
    assert looking.is_alive()  # and was right all the time
    ended.set()
    looking.join()
    assert TRIALS <= trials_in_memory() - before <= TRIALS * KEPT_STUDIES
    for number in (0, 1, STUDIES - 1):
        assert shown(place, number) == values(number)


def test_trials_that_nobody_looks_at_are_let_go_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headhunt.service.http.dashboard.KEPT_SECONDS", 1)
    before = trials_in_memory()
    for number in range(3):
        assert shown(place, number) == values(number)
    eventually(lambda: trials_in_memory() == before, 60)
    assert shown(place, 1) == values(1)
