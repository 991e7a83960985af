"""`reports build --only NAME --format html|png|json`: a single section or figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser
from typer.testing import CliRunner

from features.runtime.errors import UsageError
from headhunt import cli
from reports.build import build_only
from reports.config import Run
from tests.conftest import CHROMIUM


def test_a_figure_and_a_section_as_json(searched: Run) -> None:
    figure = json.loads(Path(build_only(searched, "history", "json")["report"]).read_text())
    assert figure["section"] == "history"  # a section's name comes before a figure's
    assert figure["figures"]["history"]["data"]
    drawn = json.loads(Path(build_only(searched, "class-counts", "json")["report"]).read_text())
    assert [bar["name"] for bar in drawn["data"]] == ["train", "val", "test"]
    told = json.loads(Path(build_only(searched, "leaders", "json")["report"]).read_text())
    assert told["tables"][0]["columns"][0] == "trial"
    assert len(told["tables"][0]["rows"]) == 5


@pytest.mark.parametrize("name", ["class-counts", "curves"])
def test_a_part_as_a_page_of_its_own(searched: Run, browser: Browser, name: str) -> None:
    page = browser.new_page()
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.goto(Path(build_only(searched, name, "html")["report"]).resolve().as_uri())
    page.wait_for_selector(".js-plotly-plot svg.main-svg")
    assert page.locator(".js-plotly-plot").count() == 1
    assert page.locator("section").count() == 1
    assert noise == []
    page.close()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chrome or Chromium")
def test_a_figure_as_a_png(searched: Run) -> None:
    with Image.open(build_only(searched, "class-counts", "png")["report"]) as image:
        assert image.format == "PNG"
        assert image.width == 2200
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 50


def test_what_cannot_be_had_by_itself(searched: Run) -> None:
    with pytest.raises(
        UsageError,
        match=r"--only: received 'nix'; allowed are the sections of this run: leaders, .*; and its figures: history, ",
    ):
        build_only(searched, "nix", "json")
    with pytest.raises(UsageError, match="--only confirmed: These leaders have not been confirmed"):
        build_only(searched, "confirmed", "html")
    with pytest.raises(UsageError, match=r"a PNG holds one figure, but this section has none\. Use html or json"):
        build_only(searched, "leaders", "png")
    with pytest.raises(
        UsageError, match=r"but this section has the figures slice-.*, parallel-coordinates.* Choose one"
    ):
        build_only(searched, "parameters", "png")


def test_the_whole_page_is_html_alone(searched: Run) -> None:
    done = CliRunner().invoke(cli.app, ["reports", "build", "--format", "png"])
    assert done.exit_code == 2
    assert "--format png: the page must be HTML; --only NAME writes a part of it as png." in done.stderr
