"""What the service keeps of a study: its trials while a job works on it, and afterwards only their summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages._cached_storage import _CachedStorage

from features.runtime.errors import LostError
from headhunt.service.board.studies import Studies, Study
from headhunt.service.jobs.jobs import JobSnapshot
from tests.service.stand_in import Place, searched_trial

LEAF = optuna.distributions.FloatDistribution(0, 1)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A search with an active job and two trials."""
    place = Place(tmp_path)
    place.submit()
    assert place.begin()
    place.files().write_stage("search")
    optuna.create_study(storage=place.settings.storage_url, study_name="cars", direction="maximize")
    add(place, 0.5, 0.7)
    place.board.look()
    return place


def add(place: Place, *values: float) -> None:
    study = optuna.load_study(study_name="cars", storage=place.settings.storage_url)
    for value in values:
        study.add_trial(searched_trial(value, params={"rate": value}, distributions={"rate": LEAF}))


def kept(place: Place) -> int:
    """Trials in memory."""
    storages = [study._storage for study in place.board._studies._at_work.values()]
    assert all(isinstance(storage, _CachedStorage) for storage in storages)
    return sum(len(study.trials) for storage in storages for study in storage._studies.values())


def told(place: Place) -> list[Any]:
    answers = [place.http.get(f"/searches/cars{path}").json() for path in ("", "/top", "/history")]
    return [answers[0]["trials"], answers[0]["best"], *answers[1:]]


def test_the_trials_of_a_search_that_is_over_are_let_go_of_and_told_all_the_same(place: Place) -> None:
    assert kept(place) == 2
    counts, best, top, history = before = told(place)
    assert (counts["complete"], best["number"], best["value"]) == (2, 1, 0.7)
    assert [row["number"] for row in top["trials"]] == [1, 0]
    assert [point["best"] for point in history["points"]] == [0.5, 0.7]
    place.finish("finished")
    assert place.state() == "finished"
    assert (kept(place), told(place)) == (0, before)
    place.http.post("/searches/cars/resume")
    assert (place.state(), kept(place), told(place)) == ("queued", 0, before)
    assert place.begin(number=2)
    add(place, 0.9)
    assert place.state() == "running"
    after = told(place)
    assert (kept(place), after[0]["complete"], after[1]["number"]) == (3, 3, 2)
    place.restart()
    assert (kept(place), told(place)) == (3, after)
    place.finish("stopped", number=2)
    assert place.state() == "stopped"
    place.restart()
    assert (kept(place), told(place)) == (0, after)


def test_what_a_job_did_between_two_looks_is_told(place: Place) -> None:
    place.finish("stopped")
    assert place.state() == "stopped"
    place.http.post("/searches/cars/resume")
    assert place.state() == "queued"
    assert place.begin(number=2)
    add(place, 0.9)
    place.finish("finished", number=2)
    assert place.state() == "finished"
    assert (kept(place), told(place)[0]["complete"]) == (0, 3)


def test_a_study_that_was_deleted_in_the_dashboard_is_told_no_more(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.finish("finished")
    assert place.state() == "finished"
    optuna.delete_study(study_name="cars", storage=place.settings.storage_url)
    monkeypatch.setattr("headhunt.service.board.board.REST_SECONDS", 0)
    place.board.look()
    counts, best, top, history = told(place)
    assert (counts["complete"], best, top["trials"], history["points"]) == (0, None, [], [])


def test_a_search_whose_configuration_is_no_longer_valid_is_told_and_stops_no_other(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    place.submit("boats")
    file = place.root / "cars" / "headhunt.yaml"
    file.write_text(file.read_text() + "unheard: 1\n")
    place.restart()
    place.board.look()
    cars, boats = (place.http.get(f"/searches/{name}").json() for name in ("cars", "boats"))
    assert (cars["state"], boats["state"], boats["message"]) == ("running", "queued", None)
    assert "unheard" in cars["message"]
    assert capfd.readouterr().err.count("cannot read the search 'cars'") == 1
    assert {search["name"] for search in place.http.get("/searches").json()["searches"]} == {"boats", "cars"}
    assert place.http.get("/searches/cars/top").json() == {"trials": []}
    refused = place.http.get("/searches/cars/promotions")
    assert refused.status_code == 422
    assert "unheard" in refused.json()["detail"]


def test_what_somebody_wrote_to_a_trial_stops_nothing(place: Place) -> None:
    study = optuna.load_study(study_name="cars", storage=place.settings.storage_url)
    study.add_trial(searched_trial(0.9, "x", params={"rate": 0.9}, distributions={"rate": LEAF}))
    place.board.look()
    top = told(place)[2]["trials"]
    assert [(row["number"], row["top5"]) for row in top] == [(2, None), (1, 0.9), (0, 0.9)]


def test_trials_that_others_added_are_counted_apart_and_neither_ranked_nor_promoted(place: Place) -> None:
    study = optuna.load_study(study_name="cars", storage=place.settings.storage_url)
    study.add_trials(
        [optuna.trial.create_trial(value=0.9), optuna.trial.create_trial(state=optuna.trial.TrialState.PRUNED)]
    )
    place.board.look()
    counts, best, top, history = told(place)
    assert (counts["complete"], counts["pruned"], counts["added"], counts["total"]) == (2, 0, 2, 6)
    assert (best["number"], [row["number"] for row in top["trials"]]) == (1, [1, 0])
    assert [point["number"] for point in history["points"]] == [0, 1]
    assert place.board.incomplete("cars", [1, 2]) == [2]
    place.finish("finished")
    refused = place.http.post("/searches/cars/promotions", json={"trials": [2]})
    assert refused.status_code == 422
    assert "trials: received 2, which the search 'cars' has not completed" in refused.json()["detail"]


def test_jobs_are_looked_after_where_ray_cannot_be_started_again(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    def keep() -> None:
        raise LostError("Ray did not start: its port is taken")

    place.board._keep_ray = keep
    place.finish("failed", "why")
    for _ in range(2):
        assert place.state() == "failed"
    assert capfd.readouterr().err.count("cannot check Ray: Ray did not start: its port is taken") == 1


def test_a_storage_that_does_not_answer_is_told_once_and_found_again(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    before = told(place)
    file = place.settings.storage_file
    assert file is not None
    bytes_before = file.read_bytes()
    file.write_bytes(b"no database " * 1000)
    for _ in range(2):
        place.board.look()
        health = place.http.get("/healthz")
        assert (health.status_code, health.json()["storage"]) == (503, "unreachable")
        assert told(place) == before  # the last known state
    assert capfd.readouterr().err.count("cannot check the storage: ") == 1
    file.write_bytes(bytes_before)
    place.board.look()
    assert place.http.get("/healthz").json()["storage"] == "ok"
    add(place, 0.9)
    place.board.look()
    assert told(place)[0]["complete"] == 3


@pytest.mark.parametrize("searched", ["stopped", "finished"])
def test_promotions_that_finished_leave_a_search_as_it_was(place: Place, searched: str) -> None:
    place.finish(searched, f"the search {searched}")
    assert place.state() == searched
    for number, state, shown in ((2, "failed", "failed"), (3, "finished", searched)):
        assert place.http.post("/searches/cars/promotions", json={"trials": [1]}).status_code == 202
        assert place.state() == "queued"
        assert place.begin(number=number)
        place.files(number=number).write_stage("promote")
        found = place.state(), place.http.get("/searches/cars").json()["stage"]
        assert found == ("running", "promote")
        place.finish(state, f"the promotions {state}", number=number)
        assert place.state() == shown
        search = place.http.get("/searches/cars").json()
        assert search["message"] == (f"the search {searched}" if shown == searched else "the promotions failed")
        assert (search["stage"], search["jobs"][-1]["state"]) == (None, state)
    place.restart()
    assert place.state() == searched


def test_trials_that_are_not_complete_are_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headhunt.service.board.studies.LONGEST_TOP", 2)
    study = optuna.load_study(study_name="cars", storage=place.settings.storage_url)
    study.add_trial(searched_trial())
    assert place.board.incomplete("cars", [3, 2, 1, 0]) == [2, 3]
    add(place, 0.6, 0.1, 0.1)  # more than are shown, and not checked yet
    assert place.board.incomplete("cars", range(6)) == [2]
    assert list(place.board.entry("cars").study.complete) == [1, 3, 0, 4, 5]
    place.finish("stopped")
    assert place.state() == "stopped"
    assert (kept(place), place.board.incomplete("cars", range(6))) == (0, [2])
    add(place, 0.2)  # by somebody else
    assert (place.board.incomplete("cars", [6]), kept(place)) == ([], 0)
    place.submit("boats")
    assert place.board.incomplete("boats", [0]) == [0]


def test_a_job_that_ends_while_its_study_is_read_is_told_with_all_it_did(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Studies.read

    def slowly(studies: Studies, run: Any, before: Study, last: JobSnapshot) -> Study:
        found = read(studies, run, before, last)
        if last.state == "running":  # after it was read, before it is shown
            add(place, 0.9)
            place.finish("finished")
            place.jobs.look_after()
        return found

    monkeypatch.setattr(Studies, "read", slowly)
    assert place.state() == "finished"
    assert told(place)[0]["complete"] == 3
    assert kept(place) == 0
