"""Configurations that the service does not take are refused with a reason, and started once where it takes them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reports.service.settings import Settings
from tests.service.in_process import client

JSON = {"Content-Type": "application/json"}
YAML = {"Content-Type": "application/yaml"}


def toy(**given: Any) -> str:
    return json.dumps({"name": "cars", "dataset": {"kind": "toy_cars"}, "features": {"weights": "random"}, **given})


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system [id]",
        "a: &a [x]\nb: *a",
        "a: " + "[" * 5000,
        "a: " + "9" * 5000,
        "name: 0x" + "f" * 5000,
        "name: 2026-99-99",
        "name: a\nname: b",
        "name: [.nan]",
        "\x00",
        '"\\ud800": 1',
    ],
)
def test_hostile_yaml_is_refused(tmp_path: Path, text: str) -> None:
    answer = client(Settings(root=tmp_path.resolve())).post("/searches", content=text, headers=YAML)
    assert answer.status_code == 422, answer.text
    assert answer.json()["faults"]


@pytest.mark.parametrize(
    "text", ['{"name": NaN}', '{"name": Infinity}', "{", '{"\\ud800": 1}', '{"name": "\\ud800"}', "[]"]
)
def test_hostile_json_is_refused(tmp_path: Path, text: str) -> None:
    answer = client(Settings(root=tmp_path.resolve())).post("/searches", content=text, headers=JSON)
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"dataset": {"kind": "folder", "root": "../photos"}}, "dataset.root"),
        ({"dataset": {"kind": "folder", "root": "/etc"}}, "dataset.root"),
        ({"dataset": {"kind": "folder", "root": "link"}}, "dataset.root"),
        ({"features": {"weights": "../w.weights.h5"}}, "features.weights"),
        ({"workdir": "elsewhere"}, "workdir"),
        ({"features": {"weights": "random", "store": "grpc://evil:1"}}, "features.store"),
        ({"search": {"hypermodel": "os:system"}}, "search.hypermodel"),
    ],
)
def test_what_leads_out_of_the_work_directory_is_refused_by_its_key(
    tmp_path: Path, given: dict[str, Any], key: str
) -> None:
    (tmp_path / "link").symlink_to("/etc")
    answer = client(Settings(root=tmp_path.resolve())).post("/searches", content=toy(**given), headers=JSON)
    assert answer.status_code == 422, answer.text
    assert any(fault.startswith(f"{key}:") for fault in answer.json()["faults"]), answer.text


def test_a_key_does_a_request_once_and_no_other(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path.resolve())
    headers = {**JSON, "Idempotency-Key": "one"}
    http = client(settings)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: http.post("/searches", content=toy(), headers=headers), range(4)))
    assert [answer.status_code for answer in answers] == [201] * 4, answers[0].text
    assert http.post("/searches", content=toy(name="other"), headers=headers).status_code == 409
    assert client(settings).post("/searches", content=toy(), headers=headers).status_code == 201
    assert client(settings).post("/searches", content=toy(), headers=JSON).status_code == 409
    assert [path.name for path in (tmp_path / "cars" / "jobs").iterdir()] == ["0001"]
