"""A request that is sent twice is executed once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.service.stand_in import Place, eventually


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_same_request_with_the_same_key_is_done_once(place: Place) -> None:
    first, second = place.submit(key="one"), place.submit(key="one")
    assert first.status_code == second.status_code == 201, first.text
    assert first.json()["jobs"][0]["created"] == second.json()["jobs"][0]["created"]
    assert len(second.json()["jobs"]) == 1
    assert first.headers["location"] == second.headers["location"] == "/searches/cars"
    eventually(lambda: place.ray.submitted == ["cars-1.1"])


@pytest.mark.parametrize("name", ["cars", "other"])
def test_another_body_with_the_same_key_is_refused(place: Place, name: str) -> None:
    place.submit(key="one")
    refused = place.submit(name, key="one", trials=7)
    assert refused.status_code == 409
    assert refused.json()["detail"] == (
        "this Idempotency-Key was already used for a different request. Use a new key for each request."
    )
    assert place.jobs.names() == ["cars"]


def test_another_route_with_the_same_key_is_refused(place: Place) -> None:
    place.submit(key="one")
    place.finish("failed", "no")
    place.board.look()
    for route in ("resume", "promotions"):
        refused = place.http.post(f"/searches/cars/{route}", json={}, headers={"Idempotency-Key": "one"})
        assert refused.status_code == 409
        assert "used for a different request" in refused.json()["detail"]
    assert len(place.jobs.of("cars")) == 1


def test_a_resumption_and_a_promotion_are_made_once_by_their_keys(place: Place) -> None:
    place.submit()
    for number, route in ((2, "resume"), (3, "promotions")):
        place.finish("finished", number=number - 1)
        place.board.look()
        for _ in range(2):
            answer = place.http.post(f"/searches/cars/{route}", json={}, headers={"Idempotency-Key": route})
            assert answer.status_code == 202, answer.text
        assert len(place.jobs.of("cars")) == number


def test_posts_at_the_same_moment_make_one_search(place: Place) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: place.submit(key="one"), range(16)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["created"] for answer in answers}) == 1
    eventually(lambda: len(place.ray.submitted) > 0)
    assert place.ray.submitted == ["cars-1.1"]


def test_posts_at_the_same_moment_without_a_key_make_one_search_and_refuse_the_others(place: Place) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: place.submit(), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7


def test_keys_outlive_a_restart(place: Place) -> None:
    place.submit(key="one")
    place.restart()
    assert place.submit(key="one").status_code == 201
    assert place.submit(key="one", trials=7).status_code == 409
    assert len(place.jobs.of("cars")) == 1


def test_a_taken_name_is_refused_with_what_to_do(place: Place) -> None:
    place.submit()
    refused = place.submit()
    assert refused.status_code == 409
    assert "the search 'cars' already exists. Resume it by POST /searches/cars/resume" in refused.json()["detail"]


def test_a_name_of_a_folder_that_is_no_search_is_refused(place: Place) -> None:
    (place.root / "photos" / "one.jpg").write_bytes(b"photo")
    refused = place.submit("photos")
    assert refused.status_code == 409
    assert "already contains 'photos', which is not a search of this service" in refused.json()["detail"]
    assert (place.root / "photos" / "one.jpg").read_bytes() == b"photo"
    assert not list(place.root.glob(".*.tmp"))


@pytest.mark.parametrize("key", ["two words", "é".encode().decode("latin-1"), "k" * 201])
@pytest.mark.parametrize("route", ["searches", "searches/cars/stop", "searches/cars/resume"])
def test_a_key_of_another_form_is_refused(place: Place, key: str, route: str) -> None:
    refused = place.http.post(f"/{route}", headers={"Idempotency-Key": key.encode("latin-1")})
    assert refused.status_code == 422
    assert "Idempotency-Key" in refused.json()["detail"]


def test_a_stop_takes_a_key(place: Place) -> None:
    place.submit()
    for _ in range(2):
        answer = place.http.post("/searches/cars/stop", headers={"Idempotency-Key": "stop"})
        assert answer.status_code == 202
        assert answer.json()["state"] == "stopped"
    described = place.http.get("/openapi.json").json()["paths"]["/searches/{name}/stop"]["post"]["parameters"]
    assert "Idempotency-Key" in [parameter["name"] for parameter in described]


def test_a_stop_that_is_sent_again_does_not_stop_what_was_resumed_since(place: Place) -> None:
    place.submit()
    stop = {"Idempotency-Key": "stop"}
    assert place.http.post("/searches/cars/stop", headers=stop).json()["state"] == "stopped"
    place.http.post("/searches/cars/resume", headers={"Idempotency-Key": "resume"})
    for _ in range(2):
        again = place.http.post("/searches/cars/stop", headers=stop)
        assert (again.status_code, again.json()["state"]) == (202, "queued")
        place.restart()
    refused = place.http.post("/searches/cars/stop", headers={"Idempotency-Key": "resume"})
    assert refused.status_code == 409
    assert "used for a different request" in refused.json()["detail"]
    assert place.http.post("/searches/cars/stop", headers={"Idempotency-Key": "another"}).json()["state"] == "stopped"


def test_a_stop_of_what_is_over_is_remembered_by_its_key_too(place: Place) -> None:
    place.submit()
    place.begin()
    place.finish("finished")
    place.board.look()
    stop = {"Idempotency-Key": "stop"}
    assert place.http.post("/searches/cars/stop", headers=stop).json()["state"] == "finished"
    place.http.post("/searches/cars/resume")
    assert place.http.post("/searches/cars/stop", headers=stop).json()["state"] == "queued"
