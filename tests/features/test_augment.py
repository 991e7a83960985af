from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from features.augment import POLICIES, AugmentationPolicy, apply_transforms, resolve_policy
from features.config import AugmentationLayer
from features.errors import UsageError

IDENTITIES = [f"{n:064x}" for n in range(50)]
STRONG = POLICIES["flip_rotate_zoom_translate"]


def smooth_image(height: int = 48, width: int = 64) -> np.ndarray:
    """(1, height, width, 3) float32 whose neighbouring pixels differ little, so that half-pixel conventions show up small."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([2 * x, 3 * y, 60 + 60 * np.sin(x / 9) * np.cos(y / 7)], -1)[None]


def composed(
    flip: bool = False, turn: float = 0.0, zoom: float = 1.0, shift: tuple[float, float] = (0, 0)
) -> np.ndarray:
    return AugmentationPolicy.compose(
        np.array([flip]), np.array([2 * math.pi * turn]), np.array([zoom]), np.array([shift]), (48, 64)
    )


@pytest.mark.parametrize(
    ("layer", "transform"),
    [
        (keras.layers.RandomRotation((0.1, 0.1)), composed(turn=0.1)),
        (keras.layers.RandomZoom((0.2, 0.2)), composed(zoom=1.2)),
        (keras.layers.RandomZoom((-0.2, -0.2)), composed(zoom=0.8)),
        (keras.layers.RandomTranslation((0.125, 0.125), (0.25, 0.25)), composed(shift=(0.25, 0.125))),
    ],
    ids=["rotation", "zoom out", "zoom in", "translation"],
)
def test_each_step_is_what_the_keras_layer_does(layer: keras.Layer, transform: np.ndarray) -> None:
    """Interior pixels, to within 1 of 255: Keras's layers may place the centre half a pixel elsewhere."""
    image = smooth_image()
    theirs, ours = np.asarray(layer(image, training=True)), np.asarray(apply_transforms(image, transform))
    inside = (slice(None), slice(16, 32), slice(20, 44))
    assert np.abs(theirs[inside] - ours[inside]).max() < 1.0
    assert np.abs(image[inside] - ours[inside]).max() > 3


def test_a_flip_mirrors_exactly() -> None:
    image = smooth_image()
    np.testing.assert_array_equal(apply_transforms(image, composed(flip=True)), image[:, :, ::-1])


def test_one_resampling_does_all_steps_in_order() -> None:
    """The whole against one step after the other; the difference is that of resampling once or four times."""
    image = smooth_image()
    step_by_step = image
    for step in (composed(flip=True), composed(turn=0.05), composed(zoom=0.9), composed(shift=(0.1, -0.05))):
        step_by_step = np.asarray(apply_transforms(step_by_step, step))
    whole = np.asarray(apply_transforms(image, composed(True, 0.05, 0.9, (0.1, -0.05))))
    inside = (slice(None), slice(16, 32), slice(20, 44))
    assert np.abs(whole[inside] - step_by_step[inside]).max() < 2.0


def test_no_policy_leaves_the_image_alone() -> None:
    image = smooth_image()
    transforms = POLICIES["none"].transforms(IDENTITIES[:1], 0, "train", 1, (48, 64))
    np.testing.assert_allclose(apply_transforms(image, transforms), image, atol=1e-3)


def test_a_draw_depends_on_seed_split_copy_and_image_alone() -> None:
    size = (48, 64)
    all_at_once = STRONG.transforms(IDENTITIES, 5, "train", 2, size)
    assert all_at_once.shape == (50, 8)
    assert all_at_once.dtype == np.float32
    np.testing.assert_array_equal(
        all_at_once[[30, 4]], STRONG.transforms([IDENTITIES[30], IDENTITIES[4]], 5, "train", 2, size)
    )
    for other in ((6, "train", 2), (5, "val", 2), (5, "train", 3)):
        assert not np.isclose(all_at_once, STRONG.transforms(IDENTITIES, *other, size)).all(1).any()
    assert STRONG.transforms([], 5, "train", 2, size).shape == (0, 8)


def test_draws_fill_the_policy_s_range() -> None:
    identities = [f"{n:064x}" for n in range(2000)]
    transforms = AugmentationPolicy(horizontal_flip=True, rotation=0.1).transforms(identities, 0, "train", 1, (64, 64))
    determinants = transforms[:, 0] * transforms[:, 4] - transforms[:, 1] * transforms[:, 3]
    assert 0.45 < np.mean(determinants < 0) < 0.55
    turns = np.arcsin(transforms[:, 3]) / (2 * math.pi)
    assert -0.1 <= turns.min() < -0.098
    assert 0.098 < turns.max() <= 0.1


def test_a_list_of_keras_layers_is_a_policy() -> None:
    layers = [
        AugmentationLayer.model_validate({"layer": "RandomFlip", "mode": "horizontal"}),
        AugmentationLayer.model_validate({"layer": "RandomRotation", "factor": 0.1}),
        AugmentationLayer.model_validate({"layer": "RandomZoom", "height_factor": 0.2}),
    ]
    assert resolve_policy(layers) == POLICIES["flip_rotate_zoom"]
    assert resolve_policy("flip_rotate_zoom") == POLICIES["flip_rotate_zoom"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("flip", "received 'flip'; allowed: none, mild, flip_rotate_zoom"),
        ([{"layer": "RandomCrop"}], "received the layers RandomCrop; allowed: RandomFlip, RandomRotation"),
        (
            [{"layer": "RandomZoom", "height_factor": 0.1}, {"layer": "RandomFlip", "mode": "horizontal"}],
            "in this order",
        ),
        ([{"layer": "RandomFlip"}], "RandomFlip takes mode: horizontal here, but got None"),
        ([{"layer": "RandomRotation", "factor": 0.1, "fill": 0}], "RandomRotation takes factor here, but got fill"),
        ([{"layer": "RandomRotation", "factor": 2}], "one share of 0 up to 1"),
        ([{"layer": "RandomTranslation", "height_factor": 0.1, "width_factor": 0.3}], "the same for both axes"),
        ([{"layer": "RandomZoom", "height_factor": [0.1, 0.2]}], "one share of 0 up to 1"),
    ],
)
def test_anything_else_is_refused(value: object, message: str) -> None:
    layers = value if isinstance(value, str) else [AugmentationLayer.model_validate(layer) for layer in value]  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=message):
        resolve_policy(layers)
