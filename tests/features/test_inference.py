"""A custom backbone always runs flattened and in inference mode, however it was saved; its files are checked early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from features.backbones.networks import build_backbone, build_extractor
from features.backbones.table import correction_key_parts
from features.building.build import build_cache
from features.cache.feature_cache import cache_for
from features.cache.keys import key_parts
from features.cli import app
from features.config import FeaturesConfig
from features.dataset.index import load_index
from features.runtime.errors import UsageError
from tests.features.test_build import MakeRun
from tests.features.test_features_cli import configured as configured_folder

configured = configured_folder

PLAIN = {"scale": 1 / 255, "offset": 0}


def config(path: Path, **rest: Any) -> FeaturesConfig:
    raw = {"backbone": str(path), "preprocessing": PLAIN, "image_size": 16, "pooling": "none", **rest}
    return FeaturesConfig.model_validate(raw)


def photos(count: int = 3, size: int = 16) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3)).astype(np.float32)


def kernels() -> Callable[..., Any]:
    """Convolutions whose weights depend only on their position."""
    keras.utils.set_random_seed(5)
    return lambda filters, **rest: keras.layers.Conv2D(filters, 3, padding="same", activation="relu", **rest)


@keras.saving.register_keras_serializable("tests")
class Shaken(keras.layers.Layer):
    """A custom layer that contains a random layer, and does not pass `training` to it."""

    def __init__(self, **rest: Any) -> None:
        super().__init__(**rest)
        self.flip = keras.layers.RandomFlip()
        self.dense = keras.layers.Dense(4)

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, inputs: Any) -> Any:
        return self.dense(self.flip(inputs))


def shaken_network(is_random: bool) -> Any:
    """Random layers of many kinds, alone, in a pipeline, in networks in the network and in layers; or the same without them."""
    conv, layers = kernels(), keras.layers

    def maybe(*random: Any) -> list[Any]:
        return list(random) if is_random else []

    inside = keras.Input((16, 16, 4))
    x = inside
    for layer in maybe(layers.Dropout(0.5), layers.RandomTranslation(0.3, 0.3)):
        x = layer(x)
    inner = keras.Model(inside, conv(4)(x), name="inner")
    branch = keras.Sequential(
        [keras.Input((16, 16, 4)), *maybe(layers.SpatialDropout2D(0.5), layers.GaussianDropout(0.5)), conv(4)]
    )
    inputs = keras.Input((16, 16, 3))
    x = inputs
    pipeline = [layers.RandomFlip("horizontal"), layers.RandomBrightness(0.5, value_range=(0, 1))]
    for layer in maybe(layers.Pipeline(pipeline), layers.RandomRotation(0.2), layers.GaussianNoise(0.5)):
        x = layer(x)
    x = conv(4)(x)
    x = layers.Add()([inner(x), branch(x)])
    flat = layers.Reshape((256, 4))(x)
    rate = 0.5 if is_random else 0.0
    attended = layers.MultiHeadAttention(2, 4, dropout=rate)(flat, flat)
    return keras.Model(inputs, layers.Reshape((16, 16, 4))(attended))


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The file of a network with random layers, and what the same network without them gives for `photos()`."""
    path = tmp_path_factory.mktemp("shaken") / "shaken.keras"
    network, plain = shaken_network(is_random=True), shaken_network(is_random=False)
    plain.set_weights(network.get_weights())
    network.save(path)
    assert np.ptp(network(photos() / 255, training=True) - plain(photos() / 255)) > 0.1
    return path, np.asarray(plain(photos() / 255))


@pytest.mark.parametrize("training", [True, None, False])
def test_random_layers_never_act(shaken: tuple[Path, Any], training: bool | None) -> None:
    path, expected = shaken
    given = build_extractor(config(path), "float32")(photos(), training=training)
    np.testing.assert_allclose(np.asarray(given), expected, atol=1e-5)


def test_a_random_layer_in_a_layer_of_ones_own_does_not_act(tmp_path: Path) -> None:
    network = keras.Sequential([keras.Input((16, 16, 3)), Shaken()])
    network.save(tmp_path / "own.keras")
    expected = np.asarray(network.layers[0].dense(photos() / 255))
    extractor = build_extractor(config(tmp_path / "own.keras"), "float32")
    for training in (True, None):
        np.testing.assert_allclose(np.asarray(extractor(photos(), training=training)), expected, atol=1e-5)


def test_random_layers_do_not_act_on_jax(shaken: tuple[Path, Any], tmp_path: Path) -> None:
    path, expected = shaken
    program = f"""
import numpy as np
from features.runtime.workers.engine import start_keras
start_keras("jax")
from features.config import FeaturesConfig
from features.backbones.networks import build_extractor
config = FeaturesConfig.model_validate_json({config(path).model_dump_json()!r})
model = build_extractor(config, "float32")
state = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
found, _ = model.stateless_call(*state, np.load({str(tmp_path / "photos.npy")!r}), training=True)
np.save({str(tmp_path / "found.npy")!r}, np.asarray(found))
"""
    np.save(tmp_path / "photos.npy", photos())
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)


def test_clean_features_are_the_same_in_every_build_and_not_those_of_earlier_versions(
    make_run: MakeRun, tmp_path: Path
) -> None:
    conv = kernels()
    network = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.RandomFlip(), conv(4)])
    network.save(tmp_path / "flip.keras")
    runs = [
        make_run(name, backbone=str(tmp_path / "flip.keras"), preprocessing=PLAIN, image_size=16)
        for name in ("first", "second")
    ]
    for run in runs:
        build_cache(run)
    first, second = (cache_for(run) for run in runs)
    assert [entry.sha256 for entry in first.manifest.shards] == [entry.sha256 for entry in second.manifest.shards]
    assert first.manifest.key_parts["left_out"] == "augmentation"
    network = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Normalization(), conv(4)])
    network.save(tmp_path / "norm.keras")
    for compute in ("bfloat16", "float32"):
        run = make_run("norm", backbone=str(tmp_path / "norm.keras"), image_size=16, compute=compute)
        assert ("normalization" in key_parts(run, load_index(run))) == (compute == "bfloat16")
    named = FeaturesConfig.model_validate({"backbone": "efficientnetb0", "compute": "bfloat16"})
    assert correction_key_parts(named) == {"normalization": "learnt"}
    build_cache(plain := make_run("plain"))
    assert "left_out" not in cache_for(plain).manifest.key_parts


STATES = ["float32", "mixed_float16", "mixed_bfloat16", "float64", "float16"]


@pytest.mark.parametrize("state", STATES)
def test_whatever_keras_computed_in_when_it_was_saved_the_backbone_computes_in_its_own(
    tmp_path: Path, state: str
) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(state)
    try:
        conv = kernels()
        norm = keras.layers.Normalization()
        norm.adapt(photos() / 255)
        network = keras.Sequential(
            [
                keras.Input((16, 16, 3), name="my.photos"),
                norm,
                conv(4),
                keras.layers.BatchNormalization(),
                keras.layers.TimeDistributed(keras.layers.Dense(5)),
            ]
        )
        network.save(tmp_path / "state.keras")
    finally:
        keras.config.set_dtype_policy(before)
    for policy, compute in (("float32", "float32"), ("mixed_bfloat16", "bfloat16")):
        backbone = build_backbone(config(tmp_path / "state.keras"), policy)  # type: ignore[arg-type]
        kinds = {part.compute_dtype for layer in backbone.layers[1:] for part in layer._flatten_layers()}
        assert kinds == {compute}
        assert {keras.backend.standardize_dtype(weight.dtype) for weight in backbone.weights} <= {"float32", "int64"}
        exact = np.asarray(network(photos() / 255), np.float32)
        np.testing.assert_allclose(np.asarray(backbone(photos() / 255), np.float32), exact, atol=0.03)


def nested(tmp_path: Path) -> Path:
    """early and late in a network `inner` in a network `outer`, between `first` and `last`; `late` is there twice."""
    conv = kernels()
    deepest = keras.Sequential([keras.Input((16, 16, 4)), conv(4, name="early"), conv(5, name="late")], name="inner")
    x = keras.Input((16, 16, 4))
    outer = keras.Model(x, conv(6, name="late")(deepest(x)), name="outer")
    inputs = keras.Input((16, 16, 3))
    outputs = conv(7, name="last")(outer(conv(4, name="first")(inputs)))
    keras.Model(inputs, outputs).save(tmp_path / "nested.keras")
    return tmp_path / "nested.keras"


def by_hand(path: Path, *steps: str) -> Any:
    """The composed output of the layers at these paths, in the network as Keras loads it."""
    model = keras.saving.load_model(path)
    x: Any = photos() / 255
    for step in steps:
        layer: Any = model
        for name in step.split("/"):
            layer = layer.get_layer(name)
        x = layer(x)
    return np.asarray(x)


@pytest.mark.parametrize("cut", ["first", "outer/inner/early", "early", "outer/inner", "outer/late", "outer"])
def test_a_cut_names_a_layer_of_a_network_in_the_network(tmp_path: Path, cut: str) -> None:
    path = nested(tmp_path)
    order = ["first", "outer/inner/early", "outer/inner/late", "outer/late"]
    ends = {"early": 2, "outer/inner/early": 2, "outer/inner": 3, "outer": 4, "outer/late": 4, "first": 1}
    given = build_extractor(config(path, cut=cut), "float32")(photos())
    np.testing.assert_allclose(np.asarray(given), by_hand(path, *order[: ends[cut]]), atol=1e-5)


def test_several_cuts_at_any_depth_are_joined(tmp_path: Path) -> None:
    path = nested(tmp_path)
    several = config(path, cut=["first", "outer/inner/early", "outer"], pooling="avg")
    given = np.asarray(build_extractor(several, "float32")(photos()))
    order = ["first", "outer/inner/early", "outer/inner/late", "outer/late"]
    expected = [by_hand(path, *order[:count]).mean((1, 2)) for count in (1, 2, 4)]
    np.testing.assert_allclose(given, np.concatenate(expected, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ("outer/inner/erly", "no layer 'outer/inner/erly'. Did you mean outer/inner/early"),
        ("erly", "no layer 'erly'. Did you mean outer/inner/early?"),
        ("late", "'late' is a layer in several networks. Choose one of outer/inner/late, outer/late."),
        ("conv5_block3", "no layer 'conv5_block3'. Its last layers: "),
        (["first", "outer/lst"], "no layer 'outer/lst'. Did you mean outer/late"),
    ],
)
def test_a_wrong_cut_is_refused_before_anything_is_computed(
    configured: Path, tmp_path: Path, cut: Any, message: str
) -> None:
    said = refused(nested(tmp_path), "prepare", f"features.cut={json.dumps(cut)}")
    assert message in said
    with pytest.raises(UsageError) as error:
        build_backbone(config(tmp_path / "nested.keras", cut=cut, pooling="avg"), "float32")
    assert message in str(error.value)


def test_a_classifier_is_cut_at_its_last_map_and_without_a_cut_its_maps_are_listed(tmp_path: Path) -> None:
    conv = kernels()
    inputs = keras.Input((16, 16, 3))
    last = conv(4, name="last_map")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(last)
    keras.Model(inputs, keras.layers.Dense(6)(pooled)).save(tmp_path / "scores.keras")
    given = build_extractor(config(tmp_path / "scores.keras", cut="last_map"), "float32")(photos())
    assert tuple(given.shape) == (3, 16, 16, 4)
    with pytest.raises(UsageError, match=r"outputs \(None, 6\), not a map .* Set `features.cut` .* last_map\."):
        build_extractor(config(tmp_path / "scores.keras"), "float32")
    with pytest.raises(UsageError, match="the cut at 'pooled' outputs"):
        build_extractor(config(tmp_path / "scores.keras", cut="pooled", pooling="avg"), "float32")


def test_a_layer_that_is_used_twice_runs_twice_and_is_no_cut(tmp_path: Path) -> None:
    conv = kernels()
    shared = keras.Sequential([keras.Input((16, 16, 3)), conv(3, name="shared")], name="twin")
    inputs = keras.Input((16, 16, 3))
    network = keras.Model(inputs, shared(shared(inputs)))
    network.save(tmp_path / "twice.keras")
    given = build_extractor(config(tmp_path / "twice.keras"), "float32")(photos())
    np.testing.assert_allclose(np.asarray(given), np.asarray(network(photos() / 255)), atol=1e-5)
    with pytest.raises(UsageError, match=r"'twin/shared' is used 2 times"):
        build_extractor(config(tmp_path / "twice.keras", cut="twin/shared"), "float32")


def refused(backbone: Path, command: str, *overrides: str) -> str:
    """The error of a command that rejects a backbone: at most three lines, exit status 2, nothing on standard output."""
    pairs = [f"features.backbone={backbone}", "features.image_size=16", *overrides]
    result = CliRunner().invoke(app, [command, "--json", *(word for pair in pairs for word in ("--set", pair))])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr and len(result.stderr.strip().splitlines()) <= 3
    return " ".join(result.stderr.split())


def network_file(path: Path, *layers: Any, shape: tuple[int, ...] = (16, 16, 3)) -> Path:
    keras.Sequential([keras.Input(shape), *layers]).save(path)
    return path


def test_files_that_no_stage_could_use_are_refused_when_the_configuration_is_checked(
    configured: Path, tmp_path: Path
) -> None:
    path = tmp_path / "made.keras"
    pooled = keras.layers.MaxPooling2D(data_format="channels_first", name="pool")
    assert "uses channels_first (layer 'pool')" in refused(network_file(path, pooled), "prepare")
    assert "expects photos of shape (8, 8, 3), but the configuration gives (16, 16, 3)" in refused(
        network_file(path, keras.layers.Conv2D(2, 3), shape=(8, 8, 3)), "prepare"
    )
    quantised = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Dense(4, name="small")])
    quantised.layers[0].quantize("int8")
    quantised.save(path)
    assert "is quantised (layer 'small')" in refused(path, "prepare")
    first, second = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    keras.Model([first, second], keras.layers.Add()([first, second])).save(path)
    assert "one input and one output, but has 2 inputs" in refused(path, "prepare")
    whole = network_file(path, keras.layers.Conv2D(2, 3)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is not a complete .keras file (it is truncated or not a zip archive)" in refused(path, "prepare")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    assert "is not a complete .keras file" in refused(path, "prepare")


def test_a_file_that_keras_cannot_load_is_one_message(configured: Path, tmp_path: Path) -> None:
    path = network_file(tmp_path / "unknown.keras", keras.layers.Conv2D(2, 3, name="known"))
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["config.json"] = content["config.json"].replace(b'"class_name": "Conv2D"', b'"class_name": "Conv9D"')
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert CliRunner().invoke(app, ["prepare"]).exit_code == 0
    said = refused(path, "cache")
    flipped = bytearray(network_file(path, keras.layers.Conv2D(2, 3)).read_bytes())
    flipped[flipped.index(b"\x89HDF") + 2000] ^= 1
    path.write_bytes(flipped)
    assert "is damaged (the checksum of its model.weights.h5 is wrong). Save the network again" in refused(
        path, "cache"
    )
    assert "Keras cannot load" in said and "Conv9D" in said and "stock Keras layers" in said


def test_a_backbone_with_weights_of_its_own_takes_no_others(configured: Path, tmp_path: Path) -> None:
    path = network_file(tmp_path / "own.keras", keras.layers.Conv2D(2, 3))
    assert "has its own weights. Remove the key" in refused(path, "prepare", "features.weights=random")


def test_keras_own_settings_file_changes_no_backbone(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(json.dumps({"image_data_format": "channels_first", "floatx": "float64"}))
    program = """
from features.runtime.workers.engine import start_keras
start_keras("tensorflow")
from features.config import FeaturesConfig
from features.backbones.networks import build_extractor
features = {"backbone": "mobilenet", "weights": "random", "image_size": 32, "pooling": "avg"}
print(build_extractor(FeaturesConfig.model_validate(features), "float32").output)
"""
    environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    assert "shape=(None, 1024), dtype=float32" in done.stdout
