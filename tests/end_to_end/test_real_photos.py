"""The main pipeline on real photographs with real weights, made small: 16 photos each of six classes, ResNet101V2 up to conv4."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the real photographs at {DATA}"),
    pytest.mark.timeout(1800),  # all of ResNet101V2 but its last stage, forward and backward, on any machine
]

CLASSES, PHOTOS = 6, 16


def test_six_classes_of_real_cars(tmp_path: Path) -> None:
    from scipy.io import loadmat, savemat

    devkit = DATA / "stanford_cars_devkit"
    rows = loadmat(devkit / "cars_train_annos.mat")["annotations"]
    there = {path.name for path in (DATA / "stanford_cars_50" / "cars_train").iterdir()}
    present = sorted({int(row["class"].item()) for row in rows[0] if row["fname"].item() in there})[:CLASSES]
    kept = [
        position
        for label in present
        for position in [n for n, row in enumerate(rows[0]) if int(row["class"].item()) == label][:PHOTOS]
    ]
    savemat(tmp_path / "cars_train_annos.mat", {"annotations": rows[:, kept]})
    overrides = {
        "workdir": tmp_path / "run",
        "dataset.root": DATA / "stanford_cars_50",
        "dataset.annotations": tmp_path / "cars_train_annos.mat",
        "dataset.meta": devkit / "cars_meta.mat",
        "features.backbone": DATA / "weights" / "resnet101v2_slim_imagenet_conv1_to_conv4.keras",
        "features.copies": 1,
        "search.trials": 8,
        "search.epochs": 10,
        "search.workers.executor": "local",
        "train.finetune.epochs": 1,
        "train.formats": "[keras, config]",  # the others take a minute: tests/train/test_export.py
    }
    command = [
        str(Path(sys.executable).with_name("headhunt")),
        "run",
        "-c",
        str(ROOT / "tests/end_to_end/stanford_cars_50.yaml"),
    ]
    command += [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run(
        [*command, "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1780, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["prepare"]["classes"] == CLASSES
    assert result["prepare"]["images"] == len([n for n in kept if rows[0, n]["fname"].item() in there])
    (promotion,) = result["promote"]["promotions"]
    assert promotion["frozen"]["val_accuracy"] > 2 / CLASSES  # twice as good as guessing
    assert promotion["tuned"]["test_accuracy"] > 2 / CLASSES
