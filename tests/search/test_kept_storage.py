"""Readers of a study share one open storage, and still see what others write, or put in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest

from search.driver.storage import kept_storage, open_storage

pytestmark = pytest.mark.unit


def add(workdir: Path, kind: str, value: float, name: str = "x") -> None:
    study = optuna.create_study(storage=open_storage(kind, workdir), study_name=name, load_if_exists=True)
    study.tell(study.ask(), value)


def values(workdir: Path, kind: str, name: str = "x") -> list[float | None]:
    study = optuna.load_study(study_name=name, storage=kept_storage(kind, workdir))
    return [trial.value for trial in study.get_trials(deepcopy=False)]


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_it_is_opened_once_and_sees_what_is_added(kind: str, tmp_path: Path) -> None:
    add(tmp_path, kind, 1.0)
    assert kept_storage(kind, tmp_path) is kept_storage(kind, tmp_path)
    study = optuna.load_study(study_name="x", storage=kept_storage(kind, tmp_path))
    assert len(study.trials) == 1
    add(tmp_path, kind, 2.0)
    assert len(study.trials) == 2  # through what was opened before
    assert values(tmp_path, kind) == [1.0, 2.0]


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_another_file_in_its_place_is_opened(kind: str, tmp_path: Path) -> None:
    for folder, value in (("one", 1.0), ("other", 2.0)):
        add(tmp_path / folder, kind, value)
    assert values(tmp_path / "one", kind) == [1.0]
    file = "study.db" if kind == "sqlite" else "study.journal"
    shutil.copyfile(tmp_path / "other" / file, tmp_path / "one" / file)
    assert values(tmp_path / "one", kind) == [2.0]


def test_the_same_relative_path_elsewhere_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, value in (("one", 1.0), ("other", 2.0)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        add(Path("run"), "sqlite", value)
        assert values(Path("run"), "sqlite") == [value]


def test_a_file_that_is_gone_is_not_read_any_longer(tmp_path: Path) -> None:
    add(tmp_path, "sqlite", 1.0)
    assert values(tmp_path, "sqlite") == [1.0]
    (tmp_path / "study.db").unlink()
    with pytest.raises(FileNotFoundError):
        kept_storage("sqlite", tmp_path)


def test_somebodys_own_database_file_may_be_replaced(tmp_path: Path) -> None:
    one, other = (f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "other"))
    add(tmp_path, one, 1.0)
    add(tmp_path, other, 2.0)
    assert values(tmp_path, one) == [1.0]
    shutil.move(tmp_path / "other.db", tmp_path / "one.db")
    assert values(tmp_path, one) == [2.0]
