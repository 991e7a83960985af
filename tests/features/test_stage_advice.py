"""What a failed stage of `headhunt run` says: the command that reruns it, as a user would type it."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from features.runtime.commands.stages import run_stage


def test_the_command_to_rerun_a_stage_has_no_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(typer.Exit) as ended:
        run_stage(["features", "prepare", "--config", "my run.yaml", "--json"])
    assert ended.value.exit_code == 2
    assert capfd.readouterr().err.rstrip().endswith("\n  headhunt features prepare --config 'my run.yaml'")
