"""The whole pipeline as a user runs it, on a few toy cars; then a rerun; then from the exported configuration."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(3000)  # two whole runs, on any machine

TOYS = """
name: toys
workdir: runs/toys
dataset: {kind: toy_cars, classes: 24, per_class: 5, image_size: 64}
features:
  backbone: tiny.keras
  preprocessing: resnet_v2
  image_size: 32
  copies: 1
  images_per_shard: 64
  workers: {count: 2, cpus: 1}
search:
  trials: 5
  confirm: {top: 2, seeds: 2}
  epochs: 4
  generation: 3
  pruner: none
  space:
    head: {layers: [0, 1], units: [16, 32]}
    batch_size: 16
    schedule: {kind: [constant, warmup_cosine], learning_rate: {low: 1.0e-6, high: 1.0e-2, log: true}}
  workers: {executor: local}
train: {top: 1, finetune: {epochs: 2, learning_rate: 1.0e-4}}
"""

PREDICT = """
import sys
sys.path = [entry for entry in sys.path if entry != ROOT]
import importlib.util
assert importlib.util.find_spec("train") is None and importlib.util.find_spec("features") is None
import keras, numpy as np
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
photos = np.load(sys.argv[2])
assert photos.dtype == np.uint8 and model.inputs[0].dtype == "uint8"
np.save(sys.argv[3], model.predict(photos, verbose=0))
assert "headhunt" not in sys.modules
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path) -> Path:
    folder = tmp_path_factory.mktemp("toys")
    shutil.copy(tiny_backbone, folder / "tiny.keras")
    (folder / "headhunt.yaml").write_text(TOYS)
    # A user's own modules with the names of our packages must not interfere.
    (folder / "train.py").write_text("raise SystemExit('the wrong train')")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    def call(*arguments: str) -> tuple[dict[str, Any], str]:
        environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
        command = [str(Path(sys.executable).with_name("headhunt")), *arguments, "--json"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return call


@pytest.fixture(scope="module")
def result(run: Callable[..., tuple[dict[str, Any], str]]) -> dict[str, Any]:
    return run("run")[0]


def test_the_result_has_the_keys_of_every_stage(result: dict[str, Any]) -> None:
    assert next(iter(result)) == "verdict" and result["verdict"]["text"] == result["promote"]["verdict"]["text"]
    assert set(result) >= {"prepare", "cache", "search", "confirm", "promote", "export", "report"}
    assert result["prepare"]["splits"] == {
        "train": 72,
        "val": 24,
        "test": 24,
    }  # of 5 per class, one each for val and test
    assert set(result["cache"]) >= {
        "cache",
        "key",
        "copies",
        "records",
        "bytes",
        "shards_written",
        "shards_reused",
        "seconds",
    }
    assert result["cache"]["records"] == 2 * 72 + 24 + 24
    assert result["search"]["trials"] == {"complete": 5, "pruned": 0, "failed": 0}
    (promotion,) = result["promote"]["promotions"]
    best = result["confirm"]["confirmed"][0]
    assert promotion["trial"] == best["number"]
    assert promotion["frozen"]["val_accuracy"] == pytest.approx(best["searched"], abs=1e-6)
    assert set(result["export"]["formats"]) == {"keras", "savedmodel", "onnx", "litert", "config"}
    assert not set(result["report"]["sections"]) & set(result["report"]["left_out"])


def test_the_report_has_the_probe_the_first_trials_and_the_winner_in_one_table(
    folder: Path, result: dict[str, Any]
) -> None:
    assert "first" in result["report"]["sections"]
    page = (folder / result["report"]["report"]).read_text(encoding="utf-8")
    table = page[page.index('id="first"') :].partition("</table>")[0]
    assert all(name in table for name in ("linear probe", "known good", "notebook"))


def test_gpus_that_are_not_there_are_refused_before_the_first_stage(tmp_path: Path) -> None:
    (tmp_path / "headhunt.yaml").write_text(TOYS)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}  # also where there is one
    command = [str(Path(sys.executable).with_name("headhunt")), "run", "--set", "train.workers.gpus=1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "each worker needs 1 GPU" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_run_folder_is_laid_out_as_documented(folder: Path, result: dict[str, Any]) -> None:
    workdir = folder / "runs" / "toys"
    number, recipe = result["export"]["trial"], result["export"]["recipe"]
    for path in (
        "dataset/index.csv",
        f"cache/{result['cache']['key'][:16]}/manifest.json",
        "study.db",
        f"trials/{number}/weights.npz",
        f"promotions/{number}-{recipe}/history.csv",
        f"promotions/{number}-{recipe}/predictions.csv",
        f"promotions/{number}-{recipe}/metrics.json",
        f"exports/{number}/model.keras",
        f"exports/{number}/savedmodel/saved_model.pb",
        f"exports/{number}/model.onnx",
        f"exports/{number}/model.tflite",
        f"exports/{number}/optuna.json",
        f"exports/{number}/keras_tuner.json",
        f"exports/{number}/headhunt.yaml",
        f"exports/{number}/labels.txt",
        f"exports/{number}/model_card.md",
        "report/index.html",
        "test_ledger.csv",
    ):
        assert (workdir / path).is_file(), path
    left = [path for path in workdir.rglob("*.tmp*") if path.is_file()]
    assert left == []


def test_running_again_does_nothing_twice(
    run: Callable[..., tuple[dict[str, Any], str]], result: dict[str, Any]
) -> None:
    again, said = run("run")
    assert again["cache"]["shards_written"] == 0
    assert again["search"]["best"] == result["search"]["best"]
    assert again["promote"] == result["promote"]
    assert "is already promoted" in said
    assert "has its 5 trials" in said
    assert said.count(again["verdict"]["text"]) == 2, "once by promote, once at the end"
    titles = [line for line in said.splitlines() if re.match(r"\d/7  ", line)]
    assert len(titles) == 7 and not any("…" in title for title in titles), "cut at 80 columns"


def test_the_export_predicts_the_same_in_plain_keras(folder: Path, result: dict[str, Any], tmp_path: Path) -> None:
    from PIL import Image

    workdir, number = folder / "runs" / "toys", result["export"]["trial"]
    table = pd.read_csv(workdir / "promotions" / f"{number}-{result['export']['recipe']}" / "predictions.csv")
    photos = [
        np.asarray(
            Image.open(workdir / "dataset" / "toy_cars" / path)
            .convert("RGB")
            .resize((32, 32), Image.Resampling.BILINEAR)
        )
        for path in table["path"]
    ]
    np.save(tmp_path / "photos.npy", np.stack(photos))
    model = workdir / "exports" / str(number) / "model.keras"
    body = f"ROOT = {str(ROOT)!r}\n{PREDICT}"
    arguments = [str(model), str(tmp_path / "photos.npy"), str(tmp_path / "probabilities.npy")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", body, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    probabilities = np.load(tmp_path / "probabilities.npy")
    assert (probabilities.argmax(1) == table["predicted_1"]).all()
    assert np.abs(probabilities.max(1) - table["probability_1"]).max() < 1e-4
    labels = (workdir / "exports" / str(number) / "labels.txt").read_text().splitlines()
    assert [labels[label] for label in table["label"]] == table["class_name"].tolist()


def test_the_exported_configuration_runs_again(
    run: Callable[..., tuple[dict[str, Any], str]], folder: Path, result: dict[str, Any]
) -> None:
    exported = result["export"]["formats"]["config"]["path"]
    quicker = ("--set", "train.formats=[keras, config]", "--set", "features.workers.executor=local")
    again, _ = run("run", "-c", exported, *quicker)
    assert again["search"]["trials"] == {"complete": 1, "pruned": 0, "failed": 0}
    (promotion,) = again["promote"]["promotions"]
    assert promotion["folder"].startswith(f"runs/toys-trial-{result['export']['trial']}/")
