"""From a cache of an inner activation to a promoted network: the head sits on the cut, in the search and in the network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import pytest

from reports.config import Run
from tests.conftest import run_headhunt


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["none", "avg"])
def test_a_head_on_an_inner_activation(searched: Run, pooling: str) -> None:
    shutil.rmtree("run")
    layers = keras.saving.load_model(searched.features.backbone, compile=False).layers
    cut = next(layer.name for layer in layers if isinstance(layer, keras.layers.ReLU))
    options = [f"features.cut={cut}", f"features.pooling={pooling}", "search.trials=2", "train.finetune.epochs=1"]
    options.append("train.formats=[keras]")
    arguments = [part for option in options for part in ("--set", option)]
    done = run_headhunt(Path.cwd(), "run", *arguments, "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    info = json.loads(run_headhunt(Path.cwd(), "features", "info", *arguments, "--json").stdout.splitlines()[-1])
    assert info["feature_shape"] == ([16, 16, 4] if pooling == "none" else [4])
    metrics = json.loads(Path(result["promote"]["promotions"][0]["folder"], "metrics.json").read_text())
    assert metrics["parity"]["max_abs_difference"] <= metrics["parity"]["tolerance"]
    assert result["export"]["formats"]["keras"]["max_abs_difference"] < 1e-4
