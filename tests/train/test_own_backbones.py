"""A user's own backbone in fine-tuning and every export: its random layers are off, whatever Keras's state when it was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from features.config import FeaturesConfig
from reports.config import Run
from search.heads import HeadConfig
from tests.train.test_finetune import MEASURED, tune
from train.exports.convert import convert
from train.exports.runtimes import RUNTIMES, load_model
from train.finetuning.heads import space_head
from train.finetuning.model import build_network, deployable

HEAD = HeadConfig(units=(4,))


def save(path: Path, is_random: bool) -> Path:
    """A network with random layers before, inside and after a nested network; or the same weights without those layers."""
    keras.utils.set_random_seed(4)
    layers: Any = keras.layers
    random = [[layers.RandomFlip(), layers.RandomRotation(0.3)], [layers.Dropout(0.5)], [layers.GaussianNoise(1.0)]]
    before, within, behind = random if is_random else ([], [], [])
    first, second, last = (layers.Conv2D(6, 3, strides=2, padding="same", name=name) for name in ("a", "b", "c"))
    inner = keras.Sequential([keras.Input((16, 16, 6)), *within, second], name="inner")
    norm = layers.BatchNormalization()
    keras.Sequential([keras.Input((32, 32, 3)), *before, first, norm, inner, *behind, last]).save(path)
    return path


@pytest.mark.parametrize("phases", [["head"], [1], ["inner/b"], ["all"]], ids=str)
def test_fine_tuning_is_that_of_the_network_without_its_random_layers(
    searched: Run, tmp_path: Path, phases: list[Any]
) -> None:
    histories, networks = [], []
    for is_random in (True, False):
        name = f"{'random' if is_random else 'plain'}"
        file = save(tmp_path / f"{name}.keras", is_random)
        run = searched.model_copy(
            update={"features": searched.features.model_copy(update={"backbone": str(file), "pooling": "avg"})}
        )
        plan = [{"unfreeze": what, "epochs": 2, "learning_rate": 1e-2} for what in phases]
        network, _, history = tune(run, tmp_path / name, HEAD, phases=plan)
        histories.append(history[MEASURED])
        networks.append(network)
    pd.testing.assert_frame_equal(*histories, rtol=1e-4)
    assert histories[0]["loss"].nunique() == 2, "it trained"
    for one, other in zip(networks[0].get_weights(), networks[1].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


STATES = ["random", "mixed_float16", "mixed_bfloat16", "float64", "integers"]


def saved_in(state: str, path: Path) -> Any:
    """A nested network whose input has an odd name, saved with Keras in this state."""
    if state == "random":
        return keras.saving.load_model(save(path, is_random=True), compile=False)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if state == "integers" else state)
    try:
        keras.utils.set_random_seed(6)
        inner = keras.Sequential(
            [keras.Input((16, 16, 6)), keras.layers.Conv2D(6, 3, activation="gelu")], name="in-ner"
        )
        inputs = keras.Input((32, 32, 3), name="my photos", dtype="uint8" if state == "integers" else None)
        x = keras.layers.Conv2D(6, 3, strides=2, padding="same")(keras.layers.Rescaling(0.5)(inputs))
        x = keras.layers.BatchNormalization(name="norm.1")(keras.ops.relu(x))
        network = keras.Model(inputs, inner(x) * 2, name="photos")
        network.save(path)
    finally:
        keras.config.set_dtype_policy(before)
    return network


@pytest.mark.parametrize("state", STATES)
def test_every_export_is_the_saved_network(tmp_path: Path, state: str) -> None:
    whole = saved_in(state, tmp_path / "own.keras")
    scale = 1.0 if state == "integers" else 1 / 255
    raw = {"backbone": str(tmp_path / "own.keras"), "preprocessing": {"scale": scale, "offset": 0}, "pooling": "avg"}
    features = FeaturesConfig.model_validate({**raw, "image_size": 32})
    moments = np.full(6, 0.1, np.float32), np.full(6, 0.5, np.float32)
    network = build_network(features, space_head(HEAD, 3, moments), "float32")
    shipped = deployable(network, features, space_head(HEAD, 3, moments))
    shipped.save(tmp_path / "source.keras")
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    maps = np.asarray(whole(photos if state == "integers" else photos * np.float32(scale), training=False), np.float32)
    logits = np.asarray(network.get_layer("head")(maps.mean((1, 2))))
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    tolerance = 0.02 if "16" in state else 2e-5
    for name, runtime in RUNTIMES.items():
        convert(tmp_path / "source.keras", tmp_path / runtime.file, name)
        given = load_model(tmp_path / runtime.file, name).run(photos)
        assert given == pytest.approx(expected, abs=tolerance), name
    loaded = keras.saving.load_model(tmp_path / "source.keras")
    for training in (None, True):  # a head without dropout: nothing in it may draw random numbers
        np.testing.assert_allclose(np.asarray(loaded(photos, training=training)), given, atol=2e-5)
