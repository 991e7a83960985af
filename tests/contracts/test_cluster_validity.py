"""The files of examples/cluster are valid by their schemas, and all command lines in them exist."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from headhunt.service.settings import Settings, check
from tests.contracts.cluster_files import (
    COMPOSE,
    HERE,
    KUBERNETES,
    LINES,
    OBJECTS,
    RAY_UP,
    README,
    SERVES,
    WORK,
    parsed,
)

SCHEMAS = Path(__file__).with_name("schemas")


def test_the_compose_file_is_valid() -> None:
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / "compose-spec.json").read_text())).validate(COMPOSE)


def test_the_kubernetes_objects_are_valid() -> None:
    schemas = {name: json.loads((SCHEMAS / name).read_text()) for name in ("kubernetes.json", "kuberay.json")}
    registry: Any = Registry().with_resources(
        [(name, Resource(schema, specification=DRAFT202012)) for name, schema in schemas.items()]
    )
    kinds = {
        **{name: f"kubernetes.json#/$defs/{full}" for name, full in schemas["kubernetes.json"]["kinds"].items()},
        **{name: f"kuberay.json#/$defs/{name}" for name in ("RayCluster", "RayJob")},
    }
    for one in [*KUBERNETES, *OBJECTS["rayjob.yml"]]:
        schema = {"$ref": kinds[one["kind"]], "required": ["apiVersion", "kind", "metadata", "spec"]}
        jsonschema.Draft202012Validator(schema, registry=registry).validate(one)


def test_ray_takes_the_file_for_ray_up() -> None:
    from ray.autoscaler import _private
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(_private.__file__).parents[1] / "ray-schema.json").read_text())
    jsonschema.validate(RAY_UP, schema)
    prepared = prepare_config(copy.deepcopy(RAY_UP))
    validate_config(prepared)
    assert prepared["max_workers"] == len(RAY_UP["provider"]["worker_ips"])
    assert RAY_UP["docker"]["worker_run_options"] == ["--gpus=all"]
    assert not any("gpus" in option for option in RAY_UP["docker"]["run_options"])


def test_ray_up_starts_every_worker() -> None:
    """By Ray's v1 autoscaler, which knows that the head is not a worker; `ray up` uses v2 unless told otherwise."""
    from ray.autoscaler._private import commands as launcher
    from ray.autoscaler._private.resource_demand_scheduler import _add_min_workers_nodes
    from ray.autoscaler._private.util import prepare_config

    lines = [
        line for text in (README, (HERE / "ray-up.yml").read_text()) for line in re.findall(r".*ray up .*yml", text)
    ]
    assert len(lines) == 2
    assert all(re.search(r"(^|# +)RAY_UP_enable_autoscaler_v2=0 \.venv/bin/ray up ", line) for line in lines)
    assert 'os.getenv("RAY_UP_enable_autoscaler_v2", "1") == "1"' in Path(launcher.__file__).read_text()
    prepared: Any = prepare_config(copy.deepcopy(RAY_UP))
    kinds, head = prepared["available_node_types"], prepared["head_node_type"]
    _, _, started = _add_min_workers_nodes([{}], {head: 1}, kinds, prepared["max_workers"], head, [], lambda *_: None)
    assert sum(started.values()) == len(RAY_UP["provider"]["worker_ips"])


@pytest.mark.parametrize("words", LINES, ids=lambda words: " ".join(words[:2]))
def test_every_command_has_these_options(words: list[str]) -> None:
    try:
        parsed(words)
    except Exception as error:
        pytest.fail(f"{shlex.join(words)}: {getattr(error, 'message', error)}")


def test_commands_were_found_in_every_file() -> None:
    assert sum(words[1] == "start" for words in LINES) == 2 + 2 + 2 + 2  # compose, kubernetes, RayJob, ray up
    assert len(SERVES) == 3
    assert {words[1] for words in LINES} >= {"run", "submit", "jobs", "stop", "up", "down", "health-check"}


@pytest.mark.parametrize("words", SERVES, ids=["compose", "kubernetes", "README"])
def test_the_service_takes_its_settings(words: list[str]) -> None:
    given = parsed(words)
    settings = Settings(
        root=given["root"], host=given["host"], port=given["port"], storage=given["storage"], ray=given["ray"],
        token="0123456789abcdef", hosts=tuple(given["allowed_host"]),
    )  # fmt: skip
    check(settings)
    assert str(settings.root) == WORK
    assert given["token_file"].name == "token"
    assert settings.is_loopback or "localhost" in settings.hosts  # its health check asks there
