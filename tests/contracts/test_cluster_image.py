"""The image of examples/cluster, and third-party images, match the project's versions."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from tests.contracts.cluster_files import (
    CLUSTERS,
    COMPOSE,
    DOCKERFILE,
    HERE,
    IMAGE,
    OURS,
    PINS,
    PROJECT,
    RAY_UP,
    ROOT,
    containers,
    pods,
)

PUBLISHED = {
    "python:3.11-slim-bookworm": "docker-library/official-images, library/python, at 01732a42e52ea2aca4809bd272fc38002f19006a",
    "postgres:17": "docker-library/postgres, versions.json, as https://deepwiki.com/docker-library/postgres tells it",
}
"""The third-party images of the examples, and where their tags were found on 27 November 2026: no registry can be queried here.
Look up new ones before adding them."""


def is_ignored(path: str) -> bool:
    """Whether .dockerignore excludes a file or folder from the image: the last matching line counts."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        places = [path, *(str(parent) for parent in Path(path).parents)]
        if line and not line.startswith("#") and any(fnmatch(place, pattern) for place in places):
            ignored = not line.startswith("!")
    return ignored


def test_image_and_versions_are_those_of_this_source() -> None:
    ours = [COMPOSE["services"][name]["image"] for name in OURS]
    ours += [container["image"] for _, container in containers() if container["name"] != "postgres"]
    assert {*ours, RAY_UP["docker"]["image"]} == {IMAGE}
    every_file = "".join(file.read_text() for file in HERE.iterdir() if file.is_file())
    assert set(re.findall(r"headhunt:\d[\w.]*", every_file)) == {IMAGE}
    assert {cluster["rayVersion"] for cluster in CLUSTERS.values()} == {PINS["ray"]}
    assert [name for name in OURS if "build" in COMPOSE["services"][name]] == ["headhunt"]  # one build of one tag


def test_images_of_others_have_tags_that_there_are() -> None:
    used = [one["image"] for one in COMPOSE["services"].values()]
    used += [one["image"] for _, pod in pods() for one in (*pod["containers"], *pod.get("initContainers", ()))]
    used += [RAY_UP["docker"]["image"], *re.findall(r"^FROM (?:--\S+ )*(\S+)", DOCKERFILE, re.MULTILINE)]
    assert set(used) - {IMAGE} == PUBLISHED.keys()
    assert len({image.partition(":")[0] for image in PUBLISHED}) == len(PUBLISHED), "one version of each"


def test_the_image_has_the_python_that_the_constraints_are_for() -> None:
    resolved = re.search(r"--python-version (\S+)", (ROOT / "Makefile").read_text())
    base = re.search(r"^FROM python:(\d+\.\d+)-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert resolved
    assert base
    assert base[1] == resolved[1]


def test_the_image_has_the_package_with_extras_that_exist() -> None:
    installed = re.search(r"pip install .*--constraint constraints.txt '\.\[(.*)\]'", DOCKERFILE)
    assert installed
    extras = set(installed[1].split(","))
    assert {"gpu", "postgresql"} <= extras <= set(PROJECT["optional-dependencies"])


def test_the_image_gets_what_it_copies_and_no_secrets() -> None:
    copied = [word for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    for path in copied:
        assert (ROOT / path).exists(), path
        assert not is_ignored(path), path
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*packages["only-include"], PROJECT["readme"], *PROJECT["license-files"]} <= set(copied)
    for path in (".git", ".venv", "runs", "examples/cluster/secrets/token", "examples/cluster/work", "shared"):
        assert is_ignored(path), path
    assert {"/secrets/", "/work/"} <= set((HERE / ".gitignore").read_text().split())
