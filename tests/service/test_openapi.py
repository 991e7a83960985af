"""The API does what its OpenAPI document says, for any request."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import optuna
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from headhunt.service.jobs.records import ACTIVE, Ended, job_files, now
from search.driver.storage import open_storage
from tests.service.in_process import BEARER, Served, served
from tests.service.serving import TOKEN, configuration
from tests.service.stand_in import PLENTY, Place, eventually, searched_trial
from train.config import FinetuneConfig
from train.evaluate import Metrics, SplitMetrics
from train.promotion.artifact import Parity, Promotion

CHECKS = [
    not_a_server_error,
    response_schema_conformance,
    response_headers_conformance,
    content_type_conformance,
    status_code_conformance,
]

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

TAKING = [one for one in OPERATIONS if one.startswith("POST") or "{" in one]
"""Operations with parameters, which can be invalid."""

RANGES = ["bytes=0-0", "bytes=1-", "bytes=-1", "bytes=0-0,2-3", "bytes=9-", "bytes=3-1", "bytes=", "lines=1-2", "x"]

THERE = {"name": ["cars"], "trial": [1], "format": ["keras", "onnx", "bundle"], "Range": RANGES}
"""Parameter values for which a finished search has an answer."""


def _fill(place: Place) -> None:
    """A finished search with trials, a promotion, an export and a report."""
    assert place.submit().status_code == 201
    study = optuna.create_study(
        study_name="cars", storage=open_storage(place.settings.storage_url, place.root), direction="maximize"
    )
    for value in (0.25, 0.75):
        study.add_trial(searched_trial(value))
    workdir = place.root / "cars"
    part = Metrics(loss=1.0, accuracy=0.5, top5_accuracy=0.75)
    metrics = Promotion(
        folder=workdir / "promotions/1-0a1b2c3d", trial=1, frozen=SplitMetrics(val=part), tuned=SplitMetrics(val=part, test=part),
        parity=Parity(images=8, max_abs_difference=1e-6, tolerance=5e-3), unfrozen=[], finetune=FinetuneConfig(), epochs=1,
        best_epoch=1, seconds=2.5, versions={}, made_from="",
    )  # fmt: skip
    for path, text in (
        ("promotions/1-0a1b2c3d/metrics.json", metrics.model_dump_json()),
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


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a token and a finished search, as served by `headhunt serve`."""
    place = Place(tmp_path_factory.mktemp("full"))
    _fill(place)
    with _looking(place.root) as service:
        yield service


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service without searches."""
    with _looking(Place(tmp_path_factory.mktemp("empty")).root) as service:
        yield service


@contextmanager
def _looking(root: Path) -> Iterator[Served]:
    with served(root, reads=PLENTY, writes=PLENTY, logins=PLENTY) as service:
        service.board.start()
        try:
            yield service
        finally:
            service.board.end()


def _end_jobs(service: Served) -> None:
    """Ends active jobs, so that the search can be resumed and promoted again."""
    active = [standing.job for standing in service.jobs.of("cars") if standing.state in ACTIVE]
    for job in active:
        job_files(service.root, "cars", job.number).write_ended(Ended(state="stopped", message=None, time=now()))
    if active:
        service.board.look()


def _documents(document: dict[str, Any], operation: str, mode: GenerationMode) -> Iterator[dict[str, Any]]:
    """The document itself, and narrower ones whose requests get further than a 404 or 422. They are separate documents because
    alternatives in one schema that are part of another are never generated."""
    method, path = operation.split()
    there = THERE if mode == GenerationMode.POSITIVE else THERE.keys() - {"Range"}  # any text is valid as one

    def described(of: dict[str, Any]) -> Any:
        del of["security"]  # the token is sent
        found = of["paths"][path][method.lower()]
        for parameter in found.get("parameters", []):
            if parameter["name"] == "follow" and mode == GenerationMode.POSITIVE:
                # It ends with a job, and no job ends here; an invalid request, or one with an invalid part, is rejected at once.
                parameter["schema"] = {"enum": [False]}
        return found

    plain = deepcopy(document)
    described(plain)
    yield plain
    narrow = deepcopy(document)
    parameters = [one for one in described(narrow).get("parameters", []) if one["name"] in there]
    for parameter in parameters:
        parameter["schema"] = {"enum": THERE[parameter["name"]]}
    if parameters:
        yield narrow
    if operation == "POST /searches":  # a valid configuration, and one with a generated section
        sections = configuration("")
        every = document["components"]["schemas"]["Configuration"]["properties"]
        for drawn in (None, *sections):
            parts = {key: every[key] if key == drawn else {"const": value} for key, value in sections.items()}
            parts["name"] = {"type": "string", "pattern": "^[a-z]{4,8}$"}
            whole = {"type": "object", "required": [*parts], "additionalProperties": False, "properties": parts}
            narrow = deepcopy(document)
            for content in described(narrow)["requestBody"]["content"].values():
                content["schema"] = whole
            yield narrow


def _statuses(service: Served, operation: str, mode: GenerationMode, examples: int, fixed: bool) -> Counter[int]:
    """Sends generated requests and checks the responses; counts their statuses."""
    method, path = operation.split()
    checks = CHECKS if operation == "POST /searches" else [*CHECKS, negative_data_rejection]
    documents = _documents(service.http.get("/openapi.json").json(), operation, mode)
    operations = [schemathesis.openapi.from_dict(document)[path][method] for document in documents]
    has_cars = "cars" in service.jobs.names()
    found: Counter[int] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=one_of([operation.as_strategy(generation_mode=mode) for operation in operations]))
    def ask(case: Any) -> None:
        if has_cars and method == "POST":
            _end_jobs(service)
        answer = case.call_and_validate(base_url=str(service.http.base_url), headers=BEARER, checks=checks)
        assert answer.status_code != 401
        found[answer.status_code] += 1

    (seed(7)(ask) if fixed else ask)()
    return found


@pytest.mark.parametrize("operation", OPERATIONS)
def test_valid_requests_are_answered_as_the_document_says(service: Served, operation: str) -> None:
    found = _statuses(service, operation, GenerationMode.POSITIVE, 20, fixed=True)
    assert any(status < 300 for status in found), found


@pytest.mark.parametrize("operation", TAKING)
def test_invalid_requests_are_refused_as_the_document_says(service: Served, operation: str) -> None:
    found = _statuses(service, operation, GenerationMode.NEGATIVE, 20, fixed=True)
    assert found[422], found


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_service_without_searches_answers_as_the_document_says(empty: Served, operation: str) -> None:
    found = _statuses(empty, operation, GenerationMode.POSITIVE, 5, fixed=True)
    assert found[404] if "{name}" in operation else any(status < 300 for status in found), found


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("operation", "mode"),
    [*((one, GenerationMode.POSITIVE) for one in OPERATIONS), *((one, GenerationMode.NEGATIVE) for one in TAKING)],
)
def test_many_requests_are_answered_as_the_document_says(service: Served, operation: str, mode: GenerationMode) -> None:
    found = _statuses(service, operation, mode, 200, fixed=False)
    assert any(status < 300 if mode == GenerationMode.POSITIVE else status >= 400 for status in found), found


def _needs_token(document: dict[str, Any], operation: str) -> bool:
    """Whether the document says that a request needs the token."""
    method, path = operation.split()
    wanted = document["paths"][path][method.lower()].get("security", document.get("security", []))
    schemes = document["components"].get("securitySchemes", {})
    assert all(schemes[name] == {"type": "http", "scheme": "bearer"} for one in wanted for name in one)
    return bool(wanted) and {} not in wanted


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_needs_the_token_is_what_the_document_says(service: Served, operation: str) -> None:
    method, path = operation.split()
    path = path.format(name="cars", trial=1, format="onnx")
    document = service.http.get("/openapi.json").json()
    asked = {
        "without": service.anonymous().request(method, path),
        "with a wrong one": service.anonymous().request(method, path, headers={"Authorization": "Bearer wrong"}),
        "by another scheme": service.anonymous().request(method, path, auth=("token", TOKEN)),
    }
    assert {how: answer.status_code == 401 for how, answer in asked.items()} == dict.fromkeys(
        asked, _needs_token(document, operation)
    )
    assert asked["without"].headers["WWW-Authenticate"] == "Bearer"
    assert service.http.request(method, path).status_code != 401


def test_what_is_not_in_the_document_is_pages_and_needs_the_token_but_for_the_login(service: Served) -> None:
    document = service.http.get("/openapi.json").json()
    open_paths = ["/login", "/assets/style.css"]
    for path in [*open_paths, "/", "/openapi.json", "/dashboard", "/logout", "/api/studies", "/elsewhere"]:
        assert path not in document["paths"]
        assert (service.anonymous().get(path).status_code == 401) == (path not in open_paths), path


def test_the_document_of_a_service_without_a_token_asks_for_none(tmp_path: Path) -> None:
    with served(tmp_path, token=None) as service:
        document = service.http.get("/openapi.json").json()
        assert "securitySchemes" not in document["components"]
        for operation in OPERATIONS:
            assert not _needs_token(document, operation)
            method, path = operation.split()
            assert service.http.request(method, path.format(name="x", trial=1, format="onnx")).status_code != 401


def test_the_tests_are_of_every_operation(service: Served) -> None:
    paths = service.http.get("/openapi.json").json()["paths"]
    found = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
    assert sorted(found) == sorted(OPERATIONS)


def test_every_operation_says_what_it_does_and_every_error_has_a_detail(service: Served) -> None:
    document = service.http.get("/openapi.json").json()
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


def test_a_service_without_ray_says_so_by_the_status_and_the_body(service: Served) -> None:
    assert service.http.get("/healthz").status_code == 200
    service.ray.silent = True

    def is_noticed() -> bool:
        service.jobs.ray_answered = None  # as after some seconds
        return service.http.get("/healthz").status_code == 503

    eventually(is_noticed, 60)
    found = service.http.get("/healthz")
    service.ray.silent = False
    eventually(lambda: service.http.get("/healthz").status_code == 200, 60)
    assert found.status_code == 503
    assert found.json() == {"status": "degraded", "ray": "unreachable", "storage": "ok", "version": "1"}


def test_what_is_in_a_finished_search_is_shown(service: Served) -> None:
    assert service.http.get("/searches/cars/report").text.startswith("<!doctype html>")
    assert service.http.get("/searches/cars/exports/1/onnx").content == b"a network"
    top = service.http.get("/searches/cars/top?limit=1").json()["trials"]
    assert [(trial["number"], trial["value"]) for trial in top] == [(1, 0.75)]
    assert [row["trial"] for row in service.http.get("/searches/cars/promotions").json()["promotions"]] == [1]
