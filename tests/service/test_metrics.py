"""The Prometheus metrics."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headhunt.service.jobs.records import ACTIVE
from search.driver.storage import open_storage
from tests.service.stand_in import Place, searched_trial


def _read(place: Place) -> dict[tuple[str, ...], float]:
    """Every sample, by its name and label values."""
    answer = place.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_metrics_tell_of_trials_pace_queue_and_best_value(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for name in ("cars", "v1.2_odd-name"):
        assert place.submit(name).status_code == 201
    study = optuna.create_study(
        study_name="cars", storage=open_storage(place.settings.storage_url, place.root), direction="maximize"
    )
    assert place.begin()
    place.files().write_stage("search")
    place.files().write_results({"cache": {"images_per_second": 123.5}})
    states = optuna.trial.TrialState
    for value in (0.25, 0.75):
        study.add_trial(searched_trial(value))
    for state in (states.PRUNED, states.FAIL, states.RUNNING):
        study.add_trial(searched_trial(state=state))
    place.board.look()
    found = _read(place)
    for state, count in (("complete", 2), ("pruned", 1), ("failed", 1), ("running", 1)):
        assert found["headhunt_trials", "cars", state] == count
        assert found["headhunt_trials", "v1.2_odd-name", state] == 0
    assert found["headhunt_trials_per_minute", "cars"] > 0
    assert found["headhunt_trials_per_minute", "v1.2_odd-name"] == 0
    assert found["headhunt_images_per_second", "cars"] == 123.5
    assert found["headhunt_best_value", "cars"] == 0.75
    assert ("headhunt_best_value", "v1.2_odd-name") not in found
    assert found["headhunt_queue_length",] == 1
    assert [found["headhunt_jobs", state] for state in ACTIVE] == [1, 1, 0]
    assert found["headhunt_up", "ray"] == found["headhunt_up", "storage"] == 1
    assert found["process_resident_memory_bytes",] > 0


def test_a_build_that_is_under_way_tells_its_pace_as_the_log_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headhunt.service.http.routes.METRICS_SECONDS", 0)
    place = Place(tmp_path)
    place.submit()
    assert place.begin()
    place.files().write_stage("cache")

    def pace() -> float | None:
        place.board.look()
        status = place.http.get("/searches/cars").json()
        found = _read(place).get(("headhunt_images_per_second", "cars"))
        assert found == status["images_per_second"]
        return found

    assert pace() is None
    log = place.files().log
    for line, told in (
        ("a first line\n", None),
        ("  features: 64 of 640, 12.5 images/s, 46 s left\n", 12.5),
        (f"{'a warning ' * 50}\n", 12.5),
        ("  features: 128 of 640, 80.0 images/s, 6 s left\n", 80.0),
    ):
        with log.open("a") as said:
            said.write(line)
        assert pace() == told
    with log.open("a") as said:
        said.write("another stage " * 1000)  # a long log is not searched completely for the rate
    assert pace() is None
    place.files().write_results({"cache": {"images_per_second": 99.5}})
    place.files().write_stage("search")
    assert pace() == 99.5  # of the whole build


def test_metrics_of_an_empty_service_are_well_formed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.jobs.ray_answered = None
    found = _read(place)
    assert found["headhunt_queue_length",] == 0
    assert found["headhunt_up", "ray"] == 0
