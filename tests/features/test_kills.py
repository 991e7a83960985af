"""`kill -9` at random moments: no finished work is lost, and the cache has the same bytes as an undisturbed build."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import run_headhunt
from tests.kills import SEED, descendants

KILLS = 20

COMMAND = ["features", "cache", "--json"]


def index_noise(tmp_path: Path, tiny_backbone: Path) -> Path:
    """headhunt.yaml on 240 photos in shards of 4 with 3 copies, indexed: 39 shards of train a copy, and those of val and test."""
    noise = np.random.default_rng(0)
    for label in range(4):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for number in range(60):
            pixels = noise.integers(0, 255, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / str(label) / f"{number}.jpg")
    features = {
        "backbone": str(tiny_backbone),
        "preprocessing": "resnet_v2",
        "image_size": 32,
        "copies": 3,
        "batch_size": 4,
        "images_per_shard": 4,
        "compute": "float32",
        "pooling": "avg+max+covariance:4",
    }
    raw = {"workdir": "run", "dataset": {"kind": "folder", "root": "photos"}, "features": features}
    (tmp_path / "headhunt.yaml").write_text(yaml.safe_dump(raw))
    run_headhunt(tmp_path, "features", "prepare")
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path, tiny_backbone: Path) -> Path:
    return index_noise(tmp_path, tiny_backbone)


@pytest.fixture
def undisturbed(folder: Path) -> dict[str, bytes]:
    """The cache of an uninterrupted build, in another workdir with the same configuration."""
    run_headhunt(folder, "features", "prepare", "--set", "workdir=calm")
    run_headhunt(folder, *COMMAND, "--executor", "local", "--set", "workdir=calm")
    return contents(folder / "calm")


def contents(workdir: Path) -> dict[str, bytes]:
    """The cache's files by name, except those with times or of a process."""
    (cache,) = (workdir / "cache").iterdir()
    return {
        path.name: path.read_bytes()
        for path in cache.iterdir()
        if path.name not in ("build.json", ".lock", "contact_sheet.png")
    }


def finished(folder: Path) -> set[str]:
    """The shards on disk that have a checksum file; the projection beside them has one, too."""
    return {path.name[1 : -len(".sha256.json")] for path in folder.glob("run/cache/*/.*.tfrecord.sha256.json")}


def start(folder: Path, executor: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [str(Path(sys.executable).with_name("headhunt")), *COMMAND, "--executor", executor]
    options = ["--set", "features.workers.count=2", "--set", "features.workers.cpus=1"]
    return subprocess.Popen(
        [*command, *options], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_a_new_shard(folder: Path, process: subprocess.Popen[str], before: set[str]) -> None:
    until = time.monotonic() + 120
    while finished(folder) == before and process.poll() is None:
        assert time.monotonic() < until, "no shard was written in two minutes"
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_driver_is_killed_again_and_again(folder: Path, undisturbed: dict[str, bytes]) -> None:
    chance = random.Random(SEED)
    print(f"HEADHUNT_KILL_SEED={SEED}")
    for kill in range(KILLS):
        if list(folder.glob("run/cache/*/manifest.json")):  # it finished before it was killed: start again
            assert contents(folder / "run") == undisturbed
            shutil.rmtree(folder / "run" / "cache")
        before = finished(folder)
        process = start(folder, {3: "auto", 6: "ray"}.get(kill % 7, "local"))
        wait_for_a_new_shard(folder, process, before)
        time.sleep(chance.uniform(0, 0.15))
        process.kill()
        process.communicate()
        assert finished(folder) >= before, "a finished shard is gone"
    before = finished(folder)
    result = json.loads(run_headhunt(folder, *COMMAND, "--executor", "local").stdout.splitlines()[-1])
    assert result["shards_reused"] == len(before)
    assert contents(folder / "run") == undisturbed
    assert json.loads(run_headhunt(folder, "features", "verify", "--json").stdout.splitlines()[-1])["ok"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_workers_are_killed_while_the_driver_goes_on(folder: Path, undisturbed: dict[str, bytes]) -> None:
    chance = random.Random(SEED)
    print(f"HEADHUNT_KILL_SEED={SEED}")
    kills = 0
    while kills < 4:
        process = start(folder, "ray")
        wait_for_a_new_shard(folder, process, finished(folder))
        for _ in range(2):
            time.sleep(chance.uniform(0, 0.1))
            workers = [number for number, line in descendants(process.pid) if line.startswith("ray::write_")]
            if workers and process.poll() is None:
                os.kill(chance.choice(workers), signal.SIGKILL)
                kills += 1
        _, said = process.communicate(timeout=280)
        assert process.returncode == 0, said
        assert contents(folder / "run") == undisturbed
        shutil.rmtree(folder / "run" / "cache")
