"""The contents of the files in examples/cluster, read once for their tests."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import dropwhile
from pathlib import Path
from typing import Any

import typer
import yaml

from headhunt.cli import app

ROOT = Path(__file__).parents[2]
HERE = ROOT / "examples" / "cluster"
WORK = "/srv/headhunt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = f"headhunt:{PROJECT['version']}"
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
README = (HERE / "README.md").read_text()
DOCKERFILE = (HERE / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((HERE / "docker-compose.yml").read_text())
RAY_UP = yaml.safe_load((HERE / "ray-up.yml").read_text())
OBJECTS = {
    name: list(yaml.safe_load_all((HERE / name).read_text()))
    for name in ("storage.yml", "kubernetes.yml", "rayjob.yml")
}
KUBERNETES = [*OBJECTS["storage.yml"], *OBJECTS["kubernetes.yml"]]
RAY_JOB = next(one for one in OBJECTS["rayjob.yml"] if one["kind"] == "RayJob")
SEARCH = HERE / "stanford_cars_8_gpus.yaml"

OURS = ("ray-head", "ray-worker", "headhunt")
"""The services of the compose file that run our image."""

CLUSTERS = {
    "kubernetes.yml": next(one["spec"] for one in KUBERNETES if one["kind"] == "RayCluster"),
    "rayjob.yml": RAY_JOB["spec"]["rayClusterSpec"],
}


def kind(name: str, of: str) -> dict[str, Any]:
    """An object of storage.yml or kubernetes.yml."""
    found: dict[str, Any] = next(one for one in KUBERNETES if (one["kind"], one["metadata"]["name"]) == (of, name))
    return found


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod of the Kubernetes files, with its name in messages."""
    for one in KUBERNETES:
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield f"{one['kind']} {one['metadata']['name']}", one["spec"]["template"]["spec"]
    for file, cluster in CLUSTERS.items():
        yield f"{file}: head", cluster["headGroupSpec"]["template"]["spec"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{file}: {group['groupName']}", group["template"]["spec"]


OUR_PODS = {name: pod for name, pod in pods() if "postgres" not in name}


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every container of the Kubernetes files."""
    for name, pod in pods():
        for container in pod["containers"]:
            yield name, container


def start_options(cluster: dict[str, Any]) -> Iterator[list[str]]:
    """What KubeRay passes to `ray start` in a cluster's pods: it renders each of rayStartParams into a shell command line."""
    for place, group in [("--head", cluster["headGroupSpec"]), *(("", one) for one in cluster["workerGroupSpecs"])]:
        line = " ".join(f"--{key}={value}" for key, value in group["rayStartParams"].items())
        yield [*([place] if place else []), *shlex.split(line)]


def blocks() -> list[str]:
    """The page's shell commands, one per line."""
    found = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.replace("\\\n", " ").splitlines()]


def commands() -> Iterator[list[str]]:
    """Every command line of ours and of Ray's in these files."""
    for service in COMPOSE["services"].values():
        yield [str(word) for word in service.get("command", ())]
        test = service.get("healthcheck", {}).get("test", [None])
        yield [str(word) for word in test[1:]]
    for _, container in containers():
        yield container.get("command", [])
    for cluster in CLUSTERS.values():
        yield from (["ray", "start", *options] for options in start_options(cluster))
    yield shlex.split(RAY_JOB["spec"]["entrypoint"])
    for line in [*RAY_UP["head_start_ray_commands"], *RAY_UP["worker_start_ray_commands"]]:
        yield shlex.split(line)
    for line in blocks():
        words = shlex.split(line, comments=True)
        if IMAGE in words and "run" in words:
            words = words[words.index(IMAGE) + 1 :]
        words = without_variables(words)
        yield [Path(words[0]).name, *words[1:]] if words and words[0].endswith(("/ray", "/headhunt")) else words
    for comment in re.findall(
        r"^# {3,}(\S.*)$", "".join(file.read_text() for file in HERE.glob("*.y*ml")), re.MULTILINE
    ):
        words = without_variables(shlex.split(comment, comments=True))
        yield [Path(words[0]).name, *words[1:]]


def without_variables(words: list[str]) -> list[str]:
    """A command without the variables set before it."""
    return list(dropwhile(re.compile(r"[A-Za-z_]\w*=").match, words))


@cache
def programs() -> dict[str, Any]:
    """The parser of the command lines."""
    from ray.scripts.scripts import cli

    return {"headhunt": typer.main.get_command(app), "ray": cli}


def parsed(words: list[str]) -> dict[str, Any]:
    """The parameters with which a command would be called; click's usage error if it does not accept these words."""
    command, rest = programs()[words[0]], words[1:]
    while hasattr(command, "commands"):
        assert rest[0] in command.commands, f"there is no command {' '.join(words)}"
        command, rest = command.commands[rest[0]], rest[1:]
    parameters: dict[str, Any] = command.make_context(command.name, list(rest)).params
    return parameters


LINES = [words for words in commands() if words and words[0] in ("headhunt", "ray")]
SERVES = [words for words in LINES if words[1] == "serve"]


def job_settings() -> dict[str, str]:
    """The RayJob command's changes to the configuration."""
    return dict(one.split("=", 1) for one in parsed(shlex.split(RAY_JOB["spec"]["entrypoint"]))["set_"])
