"""`features.weights` as a path: files of another network, truncated or without weights give one short message."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from features.backbones.networks import build_backbone
from features.backbones.weights_file import count_arrays
from features.cli import app
from features.config import FeaturesConfig
from tests.features.test_features_cli import configured as configured_folder

configured = configured_folder


def refused(command: str, weights: Path, backbone: str = "mobilenet") -> str:
    """The error of a command that rejects a weights file, in at most three lines."""
    pairs = [f"features.backbone={backbone}", "features.preprocessing=null", f"features.weights={weights}"]
    result = CliRunner().invoke(app, [command, "--json", *(word for pair in pairs for word in ("--set", pair))])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    said: str = result.stderr
    lines = said.strip().splitlines()
    said_at = next(number for number, line in enumerate(lines) if line.startswith("headhunt: "))
    assert len(lines) - said_at <= 3 and "Traceback" not in said
    assert f"features.weights: {weights}" in lines[said_at]
    return said


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    model.save_weights(path)
    return path


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_a_file_that_fits_is_used(mobilenet: Path, tmp_path: Path, suffix: str) -> None:
    model = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3))
    model.load_weights(mobilenet)
    path = tmp_path / f"own{suffix}"
    if suffix == ".keras":
        model.save(path)
    elif suffix == ".weights.h5":
        model.save_weights(path)
    else:
        from keras.src.legacy.saving import legacy_h5_format

        legacy_h5_format.save_model_to_hdf5(model, path)
    config = FeaturesConfig.model_validate({"backbone": "mobilenet", "weights": str(path), "image_size": 32})
    backbone: Any = build_backbone(config, "float32")
    for ours, theirs in zip(backbone.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert count_arrays(path) >= len(model.weights)


@pytest.mark.parametrize("backbone", ["mobilenetv2", "efficientnet_lite0", "vgg16", "resnet50"])
def test_weights_of_another_network_are_refused(
    configured: Path, mobilenet: Path, backbone: str, recwarn: pytest.WarningsRecorder
) -> None:
    """And Keras, which warns of every layer that it does not find, adds no line to the message."""
    assert CliRunner().invoke(app, ["prepare"]).exit_code == 0
    said = refused("cache", mobilenet, backbone)
    assert not [each for each in recwarn if "Skipping nested container" in str(each.message)]
    assert f"its {count_arrays(mobilenet)} arrays belong to another network" in said
    assert f"arrays of {backbone} without its top, as written by `model.save_weights('NAME.weights.h5')`." in said
    assert "set features.backbone to the network of these weights" in said


def test_weights_of_the_same_family_but_another_size_are_refused(configured: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["prepare"]).exit_code == 0
    for made, wanted in (("ResNet101V2", "resnet50v2"), ("ResNet50V2", "resnet101v2")):
        model = getattr(keras.applications, made)(include_top=False, weights=None, input_shape=(32, 32, 3))
        path = tmp_path / f"{made}.weights.h5"
        model.save_weights(path)
        assert "arrays belong to another network" in refused("cache", path, wanted)


def test_the_older_format_with_its_top_is_told(configured: Path, tmp_path: Path) -> None:
    from keras.src.legacy.saving import legacy_h5_format

    model = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3))
    legacy_h5_format.save_model_to_hdf5(model, tmp_path / "whole.h5")
    assert CliRunner().invoke(app, ["prepare"]).exit_code == 0
    assert "or to one with its top, which cannot be left out in this older format." in refused(
        "cache", tmp_path / "whole.h5"
    )


def test_files_of_no_weights_are_refused_when_the_configuration_is_checked(
    configured: Path, mobilenet: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.weights.h5"
    cut.write_bytes(mobilenet.read_bytes()[:-1000])
    assert "it is truncated" in refused("prepare", cut)
    text = tmp_path / "text.weights.h5"
    text.write_text("no weights")
    assert "it is not a complete HDF5 file" in refused("prepare", text)
    empty = tmp_path / "empty.keras"
    empty.write_bytes(b"")
    assert "it is not a complete .keras file" in refused("prepare", empty)
    other = tmp_path / "weights.pth"
    shutil.copy(mobilenet, other)
    assert "its name does not end in .weights.h5, .keras, .h5" in refused("prepare", other)
