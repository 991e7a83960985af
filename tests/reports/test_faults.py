"""Internal errors: a line of the report for its reader, but raised in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports import build, headline, page
from reports.config import Run
from reports.section import RAISE_INTERNAL_ERRORS, LeftOutError, reason_of

pytestmark = pytest.mark.unit


def broken(*_: Any) -> Any:
    raise KeyError("val")


LINE = "Headhunt failed here (KeyError: 'val'). A file of the run may be damaged; otherwise this is a bug: please report it."


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """An empty run of which a section, the verdict and the data line fail."""
    monkeypatch.setattr(page, "SECTIONS", {"cars": ("Cars", broken), "configuration": page.SECTIONS["configuration"]})
    monkeypatch.setattr(headline, "best_verdict", broken)
    monkeypatch.setattr(headline, "load_index", lambda _: None)
    monkeypatch.setattr(headline, "find_promotions", broken)
    monkeypatch.setattr("reports.dataset.findings.load", broken)
    monkeypatch.setattr(build, "SECTIONS", page.SECTIONS)
    return Run.model_validate({"workdir": str(tmp_path / "run"), "dataset": {"kind": "toy_cars"}})


def test_a_fault_of_ours_leaves_out_its_part_with_its_type(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RAISE_INTERNAL_ERRORS)
    sections, left_out = page.collect_sections(run)
    assert [section.name for section in sections] == ["configuration"]
    assert left_out == {"cars": LINE}
    assert headline.headline(run) == [("–", LINE)]
    assert headline.verdict(run).text == f"No verdict: {LINE}"
    assert headline.data_line(run) == f"could not be checked: {LINE}"
    result = build.build(run)
    assert (result["verdict"]["text"], result["left_out"]) == (f"No verdict: {LINE}", ["cars"])
    assert Path(result["report"]).read_text().count("KeyError: &#39;val&#39;") == 4


def test_in_tests_it_is_raised(run: Run) -> None:
    for made in (page.collect_sections, headline.headline, headline.verdict, headline.data_line):
        with pytest.raises(KeyError, match="val"):
            made(run)
    assert reason_of(LeftOutError("Nothing has been promoted yet.")) == "Nothing has been promoted yet."
