"""Documents name files, headings and names of the source that are there."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PACKAGES = ("features", "search", "train", "reports", "headhunt")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def _without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def _anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)", _without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(file: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)", _without_code(file.read_text())):
        path = (file.parent / target).resolve() if target else file
        assert path.exists(), f"{target} is not there"
        if (
            anchor and "<!-- generated:" not in path.read_text()
        ):  # those headings are made by `make docs`, which checks them
            assert anchor in _anchors(path.read_text()), f"{target} has no heading #{anchor}"


def test_every_page_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]:
        assert f"]({page.relative_to(ROOT)})" in readme, page
    assert len(readme.splitlines()) <= 150


def test_the_python_reference_names_what_is_there() -> None:
    names = re.findall(r"^::: (\S+)", (ROOT / "docs/reference/python.md").read_text(), re.MULTILINE)
    assert names
    for name in names:
        assert pkgutil.resolve_name(name).__doc__, name


def test_the_newcomers_map_names_what_is_there() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (?!I want|---)(.*?) \| (.*) \|$", guide, re.MULTILINE)
    assert len(rows) >= 20
    for what, where in rows:
        named = re.findall(r"`([^`]+)`", where)
        files = [ROOT / name for name in named if "/" in name]
        assert files and all(file.exists() for file in files), what
        texts = [file.read_text() for file in files if file.is_file()]
        for name in named:
            if "/" not in name and not (files[0].parent / name).is_file():
                assert any(re.search(rf"\b{name}\b", text) for text in texts), f"{what}: {name}"


def test_the_tree_of_the_source_is_the_source() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    lines = guide[guide.index("## The source") : guide.index("## How to add")].splitlines()
    tree = [re.split(r"\s{2,}", line.strip()) for line in lines if line.startswith("    ")]
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("[a-z]*.py")]
    named = {word for line in tree for part in line for word in part.split()}
    for file in files:
        assert file.stem in named, file.relative_to(ROOT)
    there = {file.stem for file in files} | {f"{file.parent.name}/" for file in files} | {"docs/", "tests/"}
    for name, *_ in tree:
        for word in name.split():
            assert word in there, word
