from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from features.cli import app
from features.config import FeaturesRun
from tests.conftest import run_headhunt

MakeRun = Callable[..., FeaturesRun]


@pytest.fixture
def configured(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with headhunt.yaml as the working directory."""
    run = make_run(prepared=False)
    raw = run.model_dump(mode="json", include={"workdir", "dataset", "features"})
    raw["workdir"] = "run"
    (tmp_path / "headhunt.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: str, status: int = 0) -> Any:
    """The JSON object that a command prints."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout.splitlines()[-1])


def refusal(*arguments: str, status: int) -> str:
    """The standard error of a failing command, in one line."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    return " ".join(result.stderr.split())


def test_the_stage_from_photos_to_a_repaired_cache(configured: Path) -> None:
    prepared = call("prepare")
    assert {"index", "images", "classes", "splits", "skipped"} <= set(prepared)
    assert prepared["index"] == "run/dataset/index.csv"
    built = call("cache")
    assert built["cache"].startswith("run/cache/")
    facts = call("info")
    assert (facts["feature_shape"], facts["copies"], facts["images"]) == ([6], 1, 24)
    assert facts["parts"] == [["avg", 6]]
    verdict = call("verify")
    assert (verdict["ok"], verdict["faults"]) == (True, [])
    assert set(verdict["input"]) == {"min", "max", "mean", "std"}
    shard = next((configured / built["cache"]).glob("val-*.tfrecord"))
    shard.write_bytes(shard.read_bytes()[:-1])
    verdict = call("verify", status=1)
    assert not verdict["ok"]
    assert verdict["faults"][0]["shard"] == shard.name
    assert call("repair")["repaired"] == [shard.name]
    assert call("verify")["ok"]


def test_commands_say_what_comes_first(configured: Path) -> None:
    assert "Run `headhunt features prepare`" in refusal("cache", status=2)
    call("prepare")
    for command in ("info", "verify", "repair"):
        assert "Run `headhunt features cache`" in refusal(command, status=1)


def test_a_wrong_key_is_refused_before_anything_runs(configured: Path) -> None:
    call("prepare")
    said = refusal("cache", "--set", "features.poling=max", status=2)
    assert "features.poling: unknown key. Did you mean 'pooling'?" in said
    said = refusal("cache", "--set", "features.augmentation=flipp", status=2)
    assert "features.augmentation: received 'flipp'; allowed: none, mild" in said


def test_the_executor_option_overrides_the_file(configured: Path) -> None:
    call("prepare")
    assert call("cache", "--set", "features.workers.executor=ray", "--executor", "local")["shards_written"] > 0


def test_people_get_sentences(configured: Path) -> None:
    for command, said in (
        ("prepare", "24 photos of 3 classes"),
        ("cache", "copies of "),
        ("info", "feature shape"),
    ):
        result = CliRunner().invoke(app, [command])
        assert result.exit_code == 0, result.output
        assert said in result.output


def test_names_are_printed_as_they_are(tmp_path: Path, photos: Path) -> None:
    """Brackets and colons of paths, classes and commands, on real streams and in advice."""
    for folder, name in (("a", "[old] 2"), ("b", "[old] 10"), ("c", ":car: 3")):
        shutil.copytree(photos / folder, tmp_path / "photos" / name)
    raw = {"workdir": "run [/b]", "dataset": {"kind": "folder", "root": "photos"}}
    (tmp_path / "head[new].yaml").write_text(yaml.safe_dump(raw))
    done = run_headhunt(tmp_path, "features", "prepare", "--config", "head[new].yaml")
    said = done.stdout + done.stderr
    assert "Index: run [/b]/dataset/index.csv" in said
    assert "natural order (:car: 3, [old] 2, …)" in said
