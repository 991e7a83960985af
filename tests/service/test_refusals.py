"""Error messages of the service: once per problem, with what was received and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from pydantic import SecretStr

from features.runtime.errors import UsageError
from headhunt.service.settings import Settings, check
from tests.service.serving import TOKEN, configuration
from tests.service.stand_in import Place, eventually, searched_trial

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path, hypermodels=("ours",))
    assert found.submit().status_code == 201
    return found


def faults(place: Place, raw: Any) -> list[str]:
    answer = place.http.post("/searches", json=raw)
    assert answer.status_code == 422, answer.text
    found: list[str] = answer.json()["faults"]
    return found


def test_a_folder_outside_is_one_fault_and_so_is_each_file(place: Place) -> None:
    cars = {"kind": "stanford_cars", "annotations": ["a.mat", "b.mat"]}
    (found,) = faults(place, {"name": "x", "dataset": {**cars, "root": "../data"}})
    assert found.startswith("dataset.root: received '../data', which is not in the service's work directory.")
    (found,) = faults(place, {"name": "x", "dataset": {**cars, "root": "photos", "annotations": ["../../a.mat"]}})
    assert found.startswith("dataset.annotations.0: received '../../a.mat', which is not")


@pytest.mark.parametrize(
    ("raw", "wrong", "never"),
    [
        ({"workdr": "x"}, "workdr: unknown key.", "workdir"),
        ({"search": {"storag": "x"}}, "search.storag: unknown key.", "'storage'"),
        ({"search": {"workers": {"adress": "x"}}}, "search.workers.adress: unknown key.", "'address'"),
    ],
)
def test_nothing_is_suggested_that_is_not_taken(place: Place, raw: dict[str, Any], wrong: str, never: str) -> None:
    (found,) = faults(place, {"name": "x", "dataset": {"kind": "toy_cars"}, **raw})
    assert found.startswith(wrong) and "Allowed: " in found
    assert never not in found.replace(wrong, "")


def test_the_document_has_no_keys_that_the_service_decides(place: Place) -> None:
    schemas = place.http.get("/openapi.json").json()["components"]["schemas"]
    properties = [
        key
        for name, schema in schemas.items()
        if name.startswith("Configuration")
        for key in schema.get("properties", {})
    ]
    assert {"name", "trials", "root", "workers"} <= set(properties)
    assert not {"workdir", "storage", "within", "address"} & set(properties)


def test_a_value_of_any_length_has_a_message_of_some(place: Place) -> None:
    for raw in (
        {"search": {"sampler": "x" * 100_000}},
        {"y" * 100_000: 1},
        {"features": {"store": "s3://" + "z" * 9999}},
    ):
        (found,) = faults(place, {"name": "x", "dataset": {"kind": "toy_cars"}, **raw})
        assert len(found) < 1100 and "characters)" in found


def test_json_has_each_key_once(place: Place) -> None:
    answer = place.http.post("/searches", content='{"name": "x", "name": "y"}', headers=JSON)
    assert answer.json()["faults"] == ["a value cannot be read: the key 'name' is given twice."]


@pytest.mark.parametrize(
    ("content", "kind", "status", "said"),
    [
        ('{"top": 2}', "application/x-www-form-urlencoded", 415, "must be application/json"),
        ('{"top": ', "application/json", 422, "the request is not valid: the body: JSON decode error."),
        ('{"top": 2, "trials": [1]}', "application/json", 422, "the body: received both top and trials; give only one"),
        ("[]", "application/json", 422, "the body: Input should be a valid dictionary"),
        ('{"tops": 2}', "application/json", 422, "tops: Extra inputs are not permitted."),
    ],
)
def test_a_request_for_promotions(place: Place, content: str, kind: str, status: int, said: str) -> None:
    answer = place.http.post("/searches/cars/promotions", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_trials_that_are_not_complete_are_not_promoted(place: Place) -> None:
    leaf = optuna.distributions.FloatDistribution(0, 1)
    study = optuna.create_study(storage=place.settings.storage_url, study_name="cars", direction="maximize")
    for state, value in ((optuna.trial.TrialState.COMPLETE, 0.5), (optuna.trial.TrialState.FAIL, None)):
        study.add_trial(searched_trial(value, state=state, params={"rate": 0.5}, distributions={"rate": leaf}))
    place.http.post("/searches/cars/stop")
    refused = place.http.post("/searches/cars/promotions", json={"trials": [7, 0, 1]})
    assert (refused.status_code, refused.json()["detail"]) == (
        422,
        "trials: received 1, 7, which the search 'cars' has not completed. GET /searches/cars/top lists the trials that can be "
        "promoted.",
    )
    assert place.http.post("/searches/cars/promotions", json={"trials": [0]}).status_code == 202


def test_a_method_that_there_is_not(place: Place) -> None:
    answer = place.http.post("/healthz")
    assert (answer.status_code, answer.json()["detail"]) == (405, "/healthz does not support POST; allowed: GET.")


def test_a_fault_of_our_own_is_told_in_json(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.board, "health", lambda: 1 / 0)
    answer = place.http.get("/healthz")
    assert answer.status_code == 500
    assert answer.json()["detail"].startswith("internal error in headhunt (ZeroDivisionError); see the service's log.")


def test_what_the_operator_no_longer_allows_is_not_gone_on_with(place: Place) -> None:
    ours = configuration("ours", hypermodel="ours:build")
    del ours["search"]["space"]
    assert place.http.post("/searches", json=ours).status_code == 201
    (place.root / "photos").rename(place.root / "before")
    (place.root / "photos").symlink_to("/etc")
    place.http.post("/searches/cars/stop")
    place.http.post("/searches/ours/stop")
    for path, content in (("resume", ""), ("promotions", "{}")):
        answer = place.http.post(f"/searches/cars/{path}", content=content, headers=JSON)
        assert answer.status_code == 422
        assert answer.json()["faults"][0].startswith("dataset.root: received 'photos', which is not in")
    (place.root / "photos").unlink()
    (place.root / "before").rename(place.root / "photos")
    assert place.http.post("/searches/ours/resume").status_code == 202
    place.http.post("/searches/ours/stop")
    place.settings = place.settings.model_copy(update={"hypermodels": ()})
    place.restart()
    refused = place.http.post("/searches/ours/resume")
    assert refused.status_code == 422
    assert refused.json()["faults"][0].startswith("search.hypermodel: received 'ours:build'; the operator allowed none")
    assert place.http.post("/searches/cars/resume").status_code == 202


def test_a_search_that_is_stopping_is_waited_for(place: Place) -> None:
    assert place.begin()
    place.http.post("/searches/cars/stop")
    answer = place.http.post("/searches/cars/resume")
    assert answer.status_code == 409
    assert answer.json()["detail"].endswith(
        "already has a stopping job (search). It is saving its state: wait until it ends, then resume it."
    )


def test_a_folder_under_another_name_is_no_search(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    assert place.submit("boats").status_code == 201
    eventually(lambda: len(place.ray.submitted) == 2)
    (place.root / "cars").rename(place.root / "cars-old")
    place.ray.known.clear()
    place.ray.submitted.clear()
    place.restart()
    assert [search["name"] for search in place.http.get("/searches").json()["searches"]] == ["boats"]
    eventually(lambda: place.ray.submitted == ["boats-1.1"])
    assert not (place.root / "cars").exists()
    assert "cars-old is the renamed folder of the search 'cars'" in capfd.readouterr().err
    assert place.submit().status_code == 201  # the name is free


def secrets(root: Path, file: Path, option: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = Settings(root=root, token=SecretStr(TOKEN))
    if option in ("PGPASSFILE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(option, str(file))
        return settings
    return settings.model_copy(update={"token_file": file})


@pytest.mark.parametrize("option", ["--token-file", "PGPASSFILE", "RAY_AUTH_TOKEN_PATH"])
def test_no_secret_lies_where_a_configuration_can_name_it(
    tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    inside, outside, hidden, link = root / "secret", tmp_path / "secret", root / ".secret", tmp_path / "link"
    for file in (inside, outside, hidden):
        file.write_text(TOKEN)
    link.symlink_to(inside)
    for file in (outside, hidden):
        check(secrets(root, file, option, monkeypatch))
    for file in (inside, link):
        with pytest.raises(UsageError, match=rf"^{option}: .* is in the work directory .* Move it elsewhere"):
            check(secrets(root, file, option, monkeypatch))


def test_stores_have_no_password_in_them(tmp_path: Path) -> None:
    check(Settings(root=tmp_path, stores=("s3://bucket/a@b",)))
    with pytest.raises(UsageError, match=r"^--store s3://\*\*\*@bucket: credentials in the URL would"):
        check(Settings(root=tmp_path, stores=("s3://key:secret@bucket/x",)))
