"""Progress of long work."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from features.runtime.commands import progress as progress_module
from features.runtime.commands.progress import progress

pytestmark = pytest.mark.unit

LINE = re.compile(r"  features: (\d+) of 10, [\d.]+ images/s, (\d+) s left")


def test_without_a_terminal_lines_say_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_module, "LINE_SECONDS", 0)

    with progress("features", 10, "images") as advance:
        for _ in range(5):
            advance(2)

    lines = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines()]
    assert [line and int(line[1]) for line in lines] == [2, 4, 6, 8, 10]
    assert lines[-1] and int(lines[-1][2]) == 0


def test_without_a_terminal_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("features", 10, "images") as advance:
        advance(10)

    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_says_it_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(progress_module, "log", Console(file=written, force_terminal=True, width=100))

    with progress("features", 10, "images") as advance:
        advance(10)

    said = written.getvalue()
    assert "features" in said and "10/10" in said and "images/s" in said
    assert said.endswith("\x1b[2K"), "the last thing is to clear the bar's line"
