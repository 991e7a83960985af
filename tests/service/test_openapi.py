"""The interface does what its OpenAPI document says, whatever it is sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from search.storage import open_storage
from tests.service.stand_in import Place

CHECKS = [not_a_server_error, response_schema_conformance, content_type_conformance, status_code_conformance]

OPERATIONS = [
    "GET /healthz",
    "GET /metrics",
    "GET /searches",
    "POST /searches",
    "GET /searches/{name}",
    "GET /searches/{name}/exports",
    "GET /searches/{name}/exports/{trial}/{format}",
    "GET /searches/{name}/history",
    "GET /searches/{name}/logs",
    "GET /searches/{name}/promotions",
    "POST /searches/{name}/promotions",
    "GET /searches/{name}/report",
    "POST /searches/{name}/resume",
    "POST /searches/{name}/stop",
    "GET /searches/{name}/top",
]

RANGES = ["bytes=0-0", "bytes=1-", "bytes=-1", "bytes=0-0,2-3", "bytes=9-", "bytes=3-1", "bytes=", "lines=1-2", "x"]


def _fill(place: Place) -> None:
    """A finished search with trials, a promotion, an export and a report."""
    assert place.submit().status_code == 201
    study = optuna.create_study(
        study_name="cars", storage=open_storage(place.settings.storage_url, place.root), direction="maximize"
    )
    for value in (0.25, 0.75):
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs={"top5": 0.9}))
    workdir = place.root / "cars"
    part = {"accuracy": 0.5, "top5_accuracy": 0.75}
    metrics = {"frozen": {"val": part}, "tuned": {"val": part, "test": part}, "seconds": 2.5}
    for path, text in (
        ("promotions/1/metrics.json", json.dumps(metrics)),
        ("exports/1/model.keras", "a network"),
        ("exports/1/model.onnx", "a network"),
        ("report/index.html", "<!doctype html><title>Report</title>"),
        ("jobs/0001/log.txt", "Searching …\n"),
    ):
        (workdir / path).parent.mkdir(parents=True, exist_ok=True)
        (workdir / path).write_text(text)
    assert place.begin()
    place.finish("finished")
    place.board.look()


@pytest.fixture(scope="module", params=["empty", "full"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A service that listens; `full` has a finished search."""
    place = Place(tmp_path_factory.mktemp(request.param))
    if request.param == "full":
        _fill(place)
    place.board.look()
    server = uvicorn.Server(
        uvicorn.Config(place.app, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    place.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield place
    server.should_exit = True
    thread.join(10)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_request_breaks_an_operation(place: Place, operation: str) -> None:
    place.jobs.look_after()  # Ray has answered of late
    document = place.http.get("/openapi.json").json()
    method, path = operation.split()
    described = document["paths"][path][method.lower()]
    for parameter in described.get("parameters", []):
        if parameter["name"] == "name":  # every second search is one that there is
            parameter["schema"] = {"anyOf": [{"const": "cars"}, parameter["schema"]]}
        if parameter["name"] == "Range":
            parameter["schema"] = {"anyOf": [{"enum": RANGES}, parameter["schema"]]}
        if parameter["name"] == "follow":  # ends with a job, which nobody does here
            parameter["schema"] = {"enum": [False]}
    schema = schemathesis.openapi.from_dict(document)

    @seed(7)
    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy())
    def ask(case: Any) -> None:
        case.call_and_validate(base_url=place.url, checks=CHECKS)

    ask()


def test_the_tests_are_of_every_operation(place: Place) -> None:
    paths = place.http.get("/openapi.json").json()["paths"]
    found = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
    assert sorted(found) == sorted(OPERATIONS)


def test_every_operation_says_what_it_does_and_every_error_has_a_detail(place: Place) -> None:
    document = place.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"] and operation["description"].endswith("."), where
            for status, answer in operation["responses"].items():
                assert answer["description"], where
                schemas = [content["schema"] for content in answer["content"].values()]
                assert schemas and all(schemas), where
                if status >= "400" and path != "/healthz":
                    assert schemas == [{"$ref": "#/components/schemas/Problem"}], where
    assert "detail" in document["components"]["schemas"]["Problem"]["required"]
    written = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in written, f"{name} is described, but nothing refers to it"


def test_a_service_without_ray_says_so_by_the_status_and_the_body(place: Place) -> None:
    assert place.http.get("/healthz").status_code == 200
    answered, place.jobs.ray_answered = place.jobs.ray_answered, None
    found = place.http.get("/healthz")
    place.jobs.ray_answered = answered
    assert found.status_code == 503
    assert found.json() == {"status": "degraded", "ray": "unreachable", "storage": "ok", "version": "1.2.3"}


def test_what_is_in_a_finished_search_is_shown(place: Place) -> None:
    if not place.jobs.names() or "cars" not in place.jobs.names():
        pytest.skip("of the full one")
    assert place.http.get("/searches/cars/report").text.startswith("<!doctype html>")
    assert place.http.get("/searches/cars/exports/1/onnx").content == b"a network"
    top = place.http.get("/searches/cars/top?limit=1").json()["trials"]
    assert [(trial["number"], trial["value"]) for trial in top] == [(1, 0.75)]
    assert [row["trial"] for row in place.http.get("/searches/cars/promotions").json()["promotions"]] == [1]
