"""Optuna's dashboard as we serve it gives the same answers as by itself, without searching the whole study for every trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from optuna.artifacts import upload_artifact
from optuna_dashboard import _app, _note, save_note

from search.driver.storage import cached_storage
from search.review.dashboard import application
from search.review.notes import artifact_store

pytestmark = pytest.mark.unit

CHANGED = (
    f"optuna-dashboard {optuna_dashboard.__version__} has changed inside: fix search/review/dashboard.py, and only there, or "
    "lower the upper bound of optuna-dashboard in pyproject.toml."
)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """Twelve trials with notes (a long and an edited one among them), pictures and artifacts; a note of the study."""
    study = optuna.create_study(storage=cached_storage("sqlite", tmp_path), study_name="cars")
    optuna_dashboard.save_note(study, "# All of them")
    store = artifact_store(tmp_path)
    (tmp_path / "curves.png").write_bytes(b"picture")
    for number in range(12):
        trial = study.ask()
        trial.suggest_float("rate", 0, 1)
        save_note(trial, f"note {number}" * (1 if number else 1000))
        upload_artifact(artifact_store=store, file_path=str(tmp_path / "curves.png"), study_or_trial=trial)
        study.tell(trial, number)
    save_note(optuna.trial.Trial(study, study.trials[3]._trial_id), "edited")
    meta = json.dumps({"artifact_id": "a", "filename": "f", "mimetype": "text/plain", "encoding": None})
    first, last = study.trials[0]._trial_id, study.trials[11]._trial_id
    for trial_id in (first, last):  # as older dashboards kept a trial's artifacts
        study._storage.set_study_system_attr(study._study_id, f"dashboard:artifacts:{trial_id}:a", meta)
    return study


def asked(answering: Any, path: str) -> Any:
    environment: dict[str, Any] = {}
    setup_testing_defaults(environment)
    path, _, query = path.partition("?")
    environment |= {"PATH_INFO": path, "QUERY_STRING": query}
    begun: list[Any] = []
    body = b"".join(answering(environment, lambda *begin: begun.extend(begin)))
    assert begun[0] == "200 OK", body
    return json.loads(body)


def test_trials_are_told_as_the_dashboard_tells_them(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = artifact_store(tmp_path)
    ours = application(study._storage, store)
    told = [asked(ours, f"/api/studies/1?after={after}") for after in (0, 7)]
    monkeypatch.setattr(_app, "serialize_study_detail", _app.serialize_study_detail.__wrapped__)
    own = optuna_dashboard.wsgi(study._storage, store)
    assert told == [asked(own, f"/api/studies/1?after={after}") for after in (0, 7)], CHANGED
    trials = told[0]["trials"]
    assert [trial["note"]["body"] for trial in trials[:4]] == ["note 0" * 1000, "note 1", "note 2", "edited"]
    assert [len(trial["artifacts"]) for trial in trials] == [2, *[1] * 10, 2]
    assert (told[0]["note"]["body"], len(told[1]["trials"])) == ("# All of them", 5)


def test_a_trial_is_told_from_its_own_attributes(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise ten thousand trials, each with a note, would take minutes."""
    looked: list[int] = []
    read = _note.get_note_from_system_attrs

    def counted(attributes: dict[str, Any], trial_id: int | None) -> Any:
        if trial_id is not None:
            looked.append(len(attributes))
        return read(attributes, trial_id)

    monkeypatch.setattr(_note, "get_note_from_system_attrs", counted)
    asked(application(study._storage, artifact_store(tmp_path)), "/api/studies/1?after=0")
    assert len(looked) == 13 and max(looked) <= 5, (
        CHANGED
    )  # the best trial is listed twice; a long note has three parts
