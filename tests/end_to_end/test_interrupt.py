"""Ctrl-C in every stage: status 130, the resuming command, nothing half-written, and the same result afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

TOYS = """
name: toys
workdir: run
dataset: {kind: toy_cars, classes: 24, per_class: 12, image_size: 96}
features: {backbone: efficientnet_lite0, image_size: 96, copies: 2, images_per_shard: 16}
search:
  trials: 200
  epochs: 30
  pruner: median
  space: {head: {units: [16, 32], layers: [0, 1]}}
train: {finetune: {epochs: 30}}
"""
STAGES = {
    "prepare": (["features", "prepare"], "", []),
    "cache": (["features", "cache"], "Computing", ["prepare"]),
    "search": (["search", "run"], "trials 0–7", ["prepare", "cache"]),
    "promote": (["train", "promote"], "epoch 1/30", ["prepare", "cache", "search"]),
}
"""Each stage's command, its output once it is working, and the stages before it."""

FEW = [
    "--set",
    "features.copies=0",
    "--set",
    "search.trials=4",
    "--set",
    "search.epochs=3",
    "--set",
    "search.pruner=none",
]


def headhunt(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("headhunt")), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupt(process: subprocess.Popen[str], marker: str, whole_group: bool) -> str:
    """Sends SIGINT once `marker` appears in the output, to the process or (like a terminal) to its group; returns all output."""
    assert process.stderr is not None
    timer = threading.Timer(200, process.kill)
    timer.start()
    said = ""
    while marker and marker not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    said += process.communicate()[1]
    timer.cancel()
    return said


def finish(folder: Path, *arguments: str) -> dict[str, Any]:
    process = headhunt(folder, *arguments, "--json")
    printed, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    return dict(json.loads(printed.splitlines()[-1]))


@pytest.mark.parametrize(
    ("executor", "whole_group"), [("local", True), ("auto", True), ("ray", False)], ids=["terminal", "workers", "kill"]
)
def test_ctrl_c_while_the_cache_is_built(tmp_path: Path, executor: str, whole_group: bool) -> None:
    (tmp_path / "headhunt.yaml").write_text(TOYS)
    finish(tmp_path, "features", "prepare")
    process = headhunt(tmp_path, "features", "cache", "--executor", executor)
    said = interrupt(process, "Computing", whole_group)
    assert process.returncode == 130, said
    assert f"Resume with:\n  headhunt features cache --executor {executor}" in said
    assert not list(tmp_path.glob("run/cache/*/manifest.json"))


def test_ctrl_c_in_a_run_of_all_stages_says_once_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "headhunt.yaml").write_text(TOYS)
    process = headhunt(tmp_path, "run")
    said = interrupt(process, "1/", whole_group=True)
    assert process.returncode == 130, said
    assert said.count("Resume with:") == said.count("headhunt: ") == 1
    assert said.endswith("Resume with:\n  headhunt run\n")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["search", "promote"])
def test_ctrl_c_in_the_later_stages(tmp_path: Path, stage: str) -> None:
    (tmp_path / "headhunt.yaml").write_text(TOYS)
    command, marker, before = STAGES[stage]
    for earlier in before:
        finish(tmp_path, *STAGES[earlier][0], *FEW)
    small = FEW if stage == "promote" else FEW[:2]
    process = headhunt(tmp_path, *command, *small)
    said = interrupt(process, marker, whole_group=True)
    assert process.returncode == 130, said
    assert "Resume with:\n  headhunt " + " ".join(command) in said
    if stage == "search":
        result = finish(tmp_path, *command, *small, "--trials", "24")
        assert sum(result["trials"].values()) >= 24
    else:
        resumed = headhunt(tmp_path, *command, *small)
        said = interrupt(resumed, "epoch 2/30", whole_group=True)
        assert "Resuming after epoch 1." in said


@pytest.mark.slow
def test_ctrl_c_in_run_reaches_the_stage_and_names_the_whole_command(tmp_path: Path) -> None:
    (tmp_path / "headhunt.yaml").write_text(TOYS)
    process = headhunt(tmp_path, "run")
    said = interrupt(process, "Computing", whole_group=True)
    assert process.returncode == 130, said
    assert said.rstrip().endswith("headhunt run")
