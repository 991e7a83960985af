"""What the README and the examples say is so."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.configfile import load
from reports.config import Run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("file", ["examples/stanford_cars.yaml", "tests/end_to_end/stanford_cars_50.yaml"])
def test_example_configurations_are_valid(file: str) -> None:
    assert load(Run, ROOT / file).name


def test_the_readme_shows_the_example_as_it_is() -> None:
    assert (ROOT / "examples" / "stanford_cars.yaml").read_text().rstrip() in (ROOT / "README.md").read_text()


def test_every_file_of_the_source_is_in_the_readmes_tree() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = readme[readme.index("## The source") :]
    for package in ("features", "search", "train", "reports"):
        for file in (ROOT / package).rglob("[a-z]*.py"):
            assert file.stem in tree.split(), f"{package}/{file.name}"
