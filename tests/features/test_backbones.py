from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from features.backbones.networks import build_extractor, build_maps, preprocessing_layers
from features.backbones.table import (
    BACKBONES,
    MODULES,
    compute_dtype,
    image_size,
    pooling,
    preprocessing,
    weights_digest,
)
from features.config import FeaturesConfig
from features.pooling import layout
from features.runtime.errors import UsageError

WEIGHTS = Path(__file__).parents[3] / "shared/data/weights"
SLIM = WEIGHTS / "resnet101v2_slim_imagenet_conv1_to_conv4.keras"
MOBILENET = WEIGHTS / "mobilenet_v2_imagenet_notop.weights.h5"


def config(backbone: str, **rest: Any) -> FeaturesConfig:
    return FeaturesConfig.model_validate({"backbone": backbone, **rest})


def test_every_builder_is_there() -> None:
    for entry in BACKBONES.values():
        assert entry.builder == "lite0" or callable(getattr(keras.applications, entry.builder))
    assert {"resnet101v2", "resnet101", "efficientnet_lite0"} <= set(BACKBONES)


@pytest.mark.parametrize("module", MODULES)
def test_preprocessing_is_that_of_keras_applications(module: str, tiny_backbone: Path) -> None:
    photos = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    expected = getattr(keras.applications, module).preprocess_input(photos.copy())
    x: Any = photos
    for layer in preprocessing_layers(config(str(tiny_backbone), preprocessing=module)):
        x = layer(x)
    np.testing.assert_allclose(np.asarray(x), expected, atol=2e-4)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0"])
def test_networks_without_preprocessing_have_it_inside(name: str) -> None:
    layers = (
        build_extractor(config(name.lower(), weights="random", image_size=32), "float32").get_layer("backbone").layers
    )
    assert any(isinstance(layer, keras.layers.Rescaling) for layer in layers)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(("pooling", "shape"), [("avg", (6,)), ("max", (6,)), ("avg+max", (12,)), ("none", (8, 8, 6))])
def test_features_are_float32_of_the_pooling_s_shape(
    tiny_backbone: Path, policy: Any, pooling: str, shape: tuple[int, ...]
) -> None:
    extractor = build_extractor(
        config(str(tiny_backbone), preprocessing="resnet_v2", image_size=32, pooling=pooling), policy
    )
    features = extractor(np.full((2, 32, 32, 3), 128, np.float32))
    assert tuple(features.shape) == (2, *shape)
    assert keras.backend.standardize_dtype(features.dtype) == "float32"


def test_the_backbone_is_frozen_and_one_layer(tiny_backbone: Path) -> None:
    extractor = build_extractor(config(str(tiny_backbone), preprocessing="resnet_v2", image_size=32), "float32")
    assert isinstance(extractor.get_layer("backbone"), keras.Model)
    assert extractor.trainable_weights == []
    before = [np.asarray(weight) for weight in extractor.weights]
    extractor(np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32), training=True)
    for old, weight in zip(before, extractor.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(weight))


def test_bfloat16_gives_nearly_the_same_features(tiny_backbone: Path) -> None:
    settings = config(str(tiny_backbone), preprocessing="resnet_v2", image_size=32)
    photos = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    exact, rough = (np.asarray(build_extractor(settings, policy)(photos)) for policy in ("float32", "mixed_bfloat16"))
    assert 0 < np.abs(exact - rough).max() < 0.02


def test_sequential_and_nested_networks_become_bfloat16_throughout(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.Conv2D(5, 3)], name="inner")
    outer = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3, strides=2, padding="same"), inner])
    outer.save(tmp_path / "nested.keras")
    settings = config(str(tmp_path / "nested.keras"), preprocessing="resnet_v2", image_size=16)
    exact, rough = (build_extractor(settings, policy) for policy in ("float32", "mixed_bfloat16"))
    assert {layer.compute_dtype for layer in rough.get_layer("backbone").layers[1:]} == {"bfloat16"}
    photos = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype(np.float32)
    assert 0 < np.abs(np.asarray(exact(photos)) - np.asarray(rough(photos))).max() < 0.02


def test_the_extractor_is_stock_keras(tiny_backbone: Path, tmp_path: Path) -> None:
    for named in ("resnet_v2", "resnet", "densenet", {"scale": 0.5, "offset": -1}):
        extractor = build_extractor(config(str(tiny_backbone), preprocessing=named, image_size=32), "float32")
        extractor.save(tmp_path / "e.keras")
        again = keras.saving.load_model(tmp_path / "e.keras", safe_mode=True)
        photos = np.full((1, 32, 32, 3), 100, np.float32)
        np.testing.assert_allclose(again(photos), extractor(photos), atol=1e-6)


@pytest.mark.skipif(not SLIM.exists(), reason="the real weights are not on this machine")
def test_a_real_network_by_path() -> None:
    settings = config(str(SLIM), preprocessing="resnet_v2", image_size=224)
    shapes = [tuple(output.shape) for output in build_maps(settings, "mixed_bfloat16").outputs]
    assert shapes == [(None, 7, 7, 1024)]
    assert layout(pooling(settings), [1024]) == (("avg", 1024), ("max", 1024), ("covariance:64", 2080))


@pytest.mark.skipif(not MOBILENET.exists(), reason="the real weights are not on this machine")
def test_real_weights_by_path() -> None:
    settings = config("mobilenetv2", weights=str(MOBILENET), image_size=96)
    ours = build_extractor(settings, "float32").get_layer("backbone").get_weights()
    theirs = keras.applications.MobileNetV2(
        weights=str(MOBILENET), include_top=False, input_shape=(96, 96, 3)
    ).get_weights()
    assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))
    assert weights_digest(settings) == hashlib.sha256(MOBILENET.read_bytes()).hexdigest()


def test_random_weights_depend_on_the_seed_alone() -> None:
    def weights(seed: int) -> np.ndarray:
        settings = config("mobilenet", weights="random", image_size=32, seed=seed)
        return np.asarray(build_extractor(settings, "float32").get_layer("backbone").get_weights()[0])

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).any()


def test_what_names_the_weights() -> None:
    assert weights_digest(config("resnet101v2", weights="random", seed=4)) == "random:4"
    assert weights_digest(config("resnet101v2")) == "keras.applications:ResNet101V2:imagenet"
    assert len(weights_digest(config("efficientnet_lite0"))) == 64


def test_sizes_and_dtypes() -> None:
    assert image_size(config("inceptionv3")) == (299, 299)
    assert image_size(config("inceptionv3", image_size=[96, 128])) == (96, 128)
    assert compute_dtype(config("resnet50", compute="float32")) == "float32"
    assert compute_dtype(config("resnet50", workers={"gpus": 1})) == "bfloat16"


def test_depthwise_networks_compute_in_float32(tmp_path: Path) -> None:
    gpu = {"workers": {"gpus": 1}}
    for name in ("mobilenetv2", "efficientnet_lite0", "convnexttiny", "xception", "nasnetmobile"):
        assert compute_dtype(config(name, **gpu)) == "float32", name
    assert compute_dtype(config("mobilenetv2", compute="bfloat16", **gpu)) == "bfloat16"
    image = keras.Input((32, 32, 3))
    alone = keras.layers.DepthwiseConv2D(3)
    for number, (layer, expected) in enumerate(
        (
            (keras.layers.Conv2D(6, 3), "bfloat16"),
            (alone, "float32"),
            (keras.layers.Conv2D(3, 3, groups=3), "float32"),
            (keras.Sequential([keras.Input((32, 32, 3)), alone]), "float32"),
        )
    ):
        path = tmp_path / f"{number}.keras"
        keras.Model(image, layer(image)).save(path)
        own = config(str(path), preprocessing="resnet_v2", image_size=32, **gpu)
        assert compute_dtype(own) == expected, layer


SMALL = ("resnet50", "vgg16", "densenet121", "mobilenet", "mobilenetv2", "mobilenetv3small", "efficientnetb0")
SMALL += ("efficientnetv2b0", "convnexttiny", "xception")


@pytest.mark.parametrize("name", SMALL)
def test_which_networks_are_depthwise(name: str) -> None:
    """By their layers, not their names."""
    kinds = [
        layer
        for layer in getattr(keras.applications, BACKBONES[name].builder)(
            weights=None, include_top=False
        )._flatten_layers()
        if isinstance(layer, keras.layers.DepthwiseConv2D | keras.layers.SeparableConv2D)
        or (isinstance(layer, keras.layers.Conv2D) and layer.groups > 1)
    ]
    assert BACKBONES[name].depthwise == bool(kinds)


def test_a_damaged_file_of_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.weights.h5"
    path.write_bytes(b"not hdf5")
    for name in ("efficientnet_lite0", "mobilenetv2"):
        with pytest.raises(UsageError, match=r"w\.weights\.h5"):
            build_extractor(config(name, weights=str(path), image_size=32), "float32")
    broken = tmp_path / "b.keras"
    broken.write_bytes(b"not a zip")
    with pytest.raises(UsageError, match=r"b\.keras is not a complete \.keras file"):
        build_extractor(config(str(broken), preprocessing="resnet", image_size=32), "float32")


def test_mistakes_are_refused_with_what_to_do(tiny_backbone: Path) -> None:
    path = str(tiny_backbone)
    with pytest.raises(UsageError, match=r"received 'resnet101v3'\. Did you mean resnet101"):
        image_size(config("resnet101v3"))
    with pytest.raises(
        UsageError, match=r"with a \.keras file as backbone, give the preprocessing of its training: one of resnet"
    ):
        preprocessing(config(path))
    with pytest.raises(UsageError, match=r"features\.image_size is required"):
        image_size(config(path))
    with pytest.raises(UsageError, match="a mapping must have `scale` and `offset`, but got scal"):
        preprocessing(config(path, preprocessing={"scal": 1}))
    with pytest.raises(UsageError, match=r"resnet50 has its own preprocessing\. Remove the key"):
        preprocessing(config("resnet50", preprocessing="resnet"))
    with pytest.raises(
        UsageError, match=r"expects photos of shape \(32, 32, 3\), but the configuration gives \(48, 48, 3\)"
    ):
        build_extractor(config(path, preprocessing="resnet_v2", image_size=48), "float32")
    with pytest.raises(UsageError, match=r"features.weights: there is no file nowhere\.h5"):
        weights_digest(config("resnet50", weights="nowhere.h5"))
    with pytest.raises(UsageError, match=r"features.backbone: there is no file nowhere\.keras"):
        weights_digest(config("nowhere.keras", preprocessing="resnet"))
