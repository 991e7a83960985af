"""What a new user meets at the terminal: help, first files, and one clear message for each wrong input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import validate as validate_schema

from features.run_file import load
from features.runtime.configfile import parse_yaml
from reports.config import Run
from tests.end_to_end.conftest import Headhunt

TOY = "name: toys\nworkdir: run\ndataset: {kind: toy_cars, classes: 24, per_class: 3, image_size: 32}\n"


def test_help_lists_every_command_of_the_tree(headhunt: Headhunt) -> None:
    assert {"init", "demo", "run", "features", "search", "train", "reports"} <= set(headhunt("--help").stdout.split())
    for group, commands in {
        "features": ("prepare", "cache", "info", "verify", "repair"),
        "search": ("run", "top", "dashboard"),
        "train": ("promote", "export", "predict", "baselines"),
        "reports": ("build",),
    }.items():
        words = set(headhunt(group, "--help").stdout.split())
        assert words >= set(commands), group


def test_init_writes_what_run_reads(headhunt: Headhunt, tmp_path: Path) -> None:
    for kind in ("stanford_cars", "folder", "csv", "toy_cars"):
        done = headhunt("init", kind, "--dataset", kind, "--json")
        assert done.returncode == 0, done.stderr
        paths = json.loads(done.stdout.splitlines()[-1])
        config = load(Run, tmp_path / paths["config"])
        assert config.dataset.kind == kind
        schema = json.loads((tmp_path / paths["schema"]).read_text())
        validate_schema(parse_yaml((tmp_path / paths["config"]).read_text(), ""), schema)


def test_init_overwrites_nothing(headhunt: Headhunt, tmp_path: Path) -> None:
    (tmp_path / "headhunt.yaml").write_text("mine")
    done = headhunt("init")
    assert done.returncode == 2
    assert "headhunt.yaml already exists" in done.stderr
    assert (tmp_path / "headhunt.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features", "prepare"], "there is no configuration file headhunt.yaml. Create one with `headhunt init`"),
        (
            ["features", "prepare", "-c", "toys.yaml", "--set", "features.copys=1"],
            "features.copys: unknown key. Did you",
        ),
        (["features", "prepare", "-c", "toys.yaml", "--set", "search.trails=1"], "search.trails: unknown key. Did you"),
        (["run", "-c", "toys.yaml", "--set", "train.tops=1"], "train.tops: unknown key. Did you mean 'top'?"),
        (["features", "cache", "-c", "toys.yaml"], "headhunt features prepare"),
        (["search", "run", "-c", "toys.yaml"], "headhunt features"),
        (["search", "top", "-c", "toys.yaml"], "headhunt search run"),
        (["train", "promote", "-c", "toys.yaml"], "headhunt"),
        (["train", "export", "-c", "toys.yaml"], "headhunt"),
        (["train", "predict", "a.jpg", "-c", "toys.yaml"], "nothing is exported in run. Run `headhunt train export`."),
        (["train", "predict", "a.jpg", "--model", "a.onnx"], "there is no model at a.onnx."),
        (["train", "predict", "a.jpg", "--model", "a.onnx", "--trial", "1"], "--model and --trial are both given."),
        (["features", "prepare", "-c", "toys.yaml", "--set", "workdir=toys.yaml/run"], "cannot create the folder"),
    ],
)
def test_wrong_input_is_one_short_message(
    headhunt: Headhunt, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "toys.yaml").write_text(TOY)
    done = headhunt(*arguments)
    assert done.returncode in (1, 2)
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) < 8
    assert [path.name for path in tmp_path.iterdir()] == ["toys.yaml"]


@pytest.mark.parametrize("command", ["--version", "features --help", "init new --json"])
def test_an_output_that_cannot_be_written_is_one_short_message(tmp_path: Path, command: str) -> None:
    headhunt = Path(sys.executable).with_name("headhunt")

    def run(redirected: str) -> subprocess.CompletedProcess[str]:
        shell = ["sh", "-c", f"{headhunt} {command} {redirected}"]
        return subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=False)

    full = run(">/dev/full")
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith(
        "headhunt: cannot write the output: No space left on device. Free some space"
    )
    assert "Traceback" not in full.stderr
    shutil.rmtree(tmp_path / "new", ignore_errors=True)
    closed = run(">&-")
    assert (closed.returncode, "Traceback" in closed.stderr) == (0, False), closed.stderr


def test_an_unknown_command_is_answered_by_status_2(headhunt: Headhunt) -> None:
    done = headhunt("serach")
    assert done.returncode == 2
    assert "serach" in done.stderr
