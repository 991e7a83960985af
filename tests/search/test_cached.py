"""The storage of readers that stay: it reads a trial that is over once, and lets go of it again."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread
from typing import Any

import optuna
import pytest

from search.cached import CachedStorage
from search.storage import cached_storage, let_go_of_trials


@pytest.fixture
def studies(tmp_path: Path) -> tuple[CachedStorage, optuna.Study, optuna.Study]:
    """Two studies of three trials in one storage, which has read them."""
    storage = cached_storage("sqlite", tmp_path)
    assert isinstance(storage, CachedStorage)
    found = [optuna.create_study(storage=storage, study_name=name) for name in ("one", "two")]
    for study in found:
        study.optimize(lambda trial: trial.suggest_float("rate", 0, 1), n_trials=3)
        assert len(study.get_trials(deepcopy=False)) == 3
    return storage, *found


def test_what_is_let_go_is_read_again(studies: tuple[CachedStorage, optuna.Study, optuna.Study]) -> None:
    storage, one, two = studies
    before, other = one.trials, two.get_trials(deepcopy=False)
    let_go_of_trials(storage, one._study_id)
    let_go_of_trials(storage, one._study_id)
    assert list(storage._studies) == [two._study_id]
    assert set(storage._trial_id_to_study_id_and_number) == {trial._trial_id for trial in other}
    assert storage.get_trial(before[1]._trial_id) == before[1]
    assert (one.trials, one.best_trial, one.study_name) == (before, min(before, key=lambda trial: trial.value), "one")
    assert two.get_trials(deepcopy=False)[0] is other[0]
    one.optimize(lambda trial: trial.suggest_float("rate", 0, 1), n_trials=1)
    assert [trial.number for trial in one.trials] == [0, 1, 2, 3]
    with pytest.raises(KeyError):
        storage.get_all_trials(99)


def test_a_study_is_let_go_of_while_it_is_read(
    studies: tuple[CachedStorage, optuna.Study, optuna.Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, one, _ = studies
    is_read, is_let_go = Event(), Event()
    read = CachedStorage._read_trials_from_remote_storage

    def slow(self: CachedStorage, study_id: int) -> None:
        read(self, study_id)
        is_read.set()
        assert is_let_go.wait(10)

    monkeypatch.setattr(CachedStorage, "_read_trials_from_remote_storage", slow)
    found: list[Any] = []
    reader = Thread(target=lambda: found.append(one.get_trials(deepcopy=False)))
    reader.start()
    assert is_read.wait(10)
    storage.let_go(one._study_id)
    is_let_go.set()
    reader.join(10)
    assert [len(trials) for trials in found] == [3]
