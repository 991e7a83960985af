"""A backbone cut at one of its layers: what is cached there, and the rest of the network behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from features.build import build_cache
from features.cache import cache_for
from features.config import FeaturesConfig
from features.errors import UsageError
from features.networks import build_backbone, build_extractor, build_suffix
from tests.features.test_build import MakeRun


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> FeaturesConfig:
    """A network of two blocks, the second with a residual connection: `first` → (`second` → `third`) + → `last`."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="first")(inputs)
    first = keras.layers.BatchNormalization(name="first_bn")(first)
    second = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="second")(first)
    third = keras.layers.Conv2D(4, 3, padding="same", name="third")(second)
    joined = keras.layers.Add(name="block_out")([first, third])
    outputs = keras.layers.Conv2D(6, 1, strides=2, name="last")(joined)
    path = tmp_path_factory.mktemp("residual") / "residual.keras"
    keras.Model(inputs, outputs).save(path)
    raw = {"backbone": str(path), "preprocessing": {"scale": 1 / 255, "offset": 0}, "image_size": 16}
    return FeaturesConfig.model_validate(raw)


def cut(config: FeaturesConfig, **update: Any) -> FeaturesConfig:
    return config.model_copy(update=update)


@pytest.mark.parametrize("layer", ["first_bn", "block_out"])
def test_the_parts_before_and_behind_a_cut_are_the_whole(residual: FeaturesConfig, layer: str) -> None:
    photos = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    whole = np.asarray(build_backbone(residual, "float32")(photos))
    before, behind = (build(cut(residual, cut=layer), "float32") for build in (build_backbone, build_suffix))
    np.testing.assert_allclose(np.asarray(behind(before(photos))), whole, atol=1e-5)
    assert not [weight for model in (before, behind) for weight in model.trainable_weights]


def test_a_cut_gives_the_activation_itself_unless_pooling_is_asked_for(residual: FeaturesConfig) -> None:
    photos = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3)).astype(np.float32)
    activation = np.asarray(build_extractor(cut(residual, cut="second"), "float32")(photos))
    assert activation.shape == (2, 8, 8, 4)
    pooled = np.asarray(build_extractor(cut(residual, cut="second", pooling="avg"), "float32")(photos))
    np.testing.assert_allclose(pooled, activation.mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize(
    ("build", "changes", "message"),
    [
        (build_backbone, {"cut": "secnd"}, "the backbone has no layer 'secnd'. Did you mean second"),
        (build_backbone, {"cut": "conv5"}, "no layer 'conv5'. Its last layers: .*block_out, last"),
        (build_suffix, {"cut": "second"}, "cannot be cut at 'second': other paths lead past it"),
        (build_suffix, {}, "name the layer that the suffix begins behind"),
    ],
)
def test_a_wrong_cut_is_explained(residual: FeaturesConfig, build: Any, changes: Any, message: str) -> None:
    with pytest.raises(UsageError, match=rf"features\.cut: .*{message}"):
        build(cut(residual, **changes), "float32")


def test_a_cache_of_a_cut(make_run: MakeRun, residual: FeaturesConfig) -> None:
    update = {"backbone": residual.backbone, "preprocessing": residual.preprocessing, "image_size": 16}
    run = make_run(cut="block_out", **update)
    build_cache(run)
    cache = cache_for(run)
    assert cache.feature_shape == (8, 8, 4)
    suffix = build_suffix(run.features, "float32")
    maps = np.asarray(suffix(cache.arrays("val", dtype=np.float32)[0]))
    whole = make_run("whole", pooling="none", **update)
    build_cache(whole)
    np.testing.assert_allclose(maps, cache_for(whole).arrays("val")[0], atol=5e-3)


SLIM = Path(__file__).parents[3] / "shared/data/weights/resnet101v2_slim_imagenet_conv1_to_conv4.keras"


@pytest.mark.slow
@pytest.mark.skipif(not SLIM.exists(), reason=f"needs {SLIM}")
def test_real_weights_are_cut_at_every_block() -> None:
    raw = {"backbone": str(SLIM), "preprocessing": "resnet_v2", "image_size": 224}
    config = FeaturesConfig.model_validate(raw)
    model = keras.saving.load_model(SLIM, compile=False)
    photos = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    whole = np.asarray(build_backbone(config, "float32")(photos))
    blocks = [layer.name for layer in model.layers if layer.name.startswith("add")]
    for layer in (blocks[0], blocks[-2]):
        at = cut(config, cut=layer)
        parts = build_suffix(at, "float32")(build_backbone(at, "float32")(photos))
        np.testing.assert_allclose(np.asarray(parts), whole, atol=1e-3)
