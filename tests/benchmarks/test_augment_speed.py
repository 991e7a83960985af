"""Milliseconds for the view of one photo: merged geometric layers, RandAugment, and Keras's layers photo by photo."""

from __future__ import annotations

import statistics
import time
from typing import Any

import keras
import numpy as np
import pytest

from features.augmentation.augment import POLICIES, Augmenter, resolve_policy
from features.config import AugmentationLayer

COLOURS = [
    AugmentationLayer.model_validate({"layer": f"Random{name}", "factor": 0.2}) for name in ("Brightness", "Contrast")
]


@pytest.mark.benchmark
def test_views_of_a_batch() -> None:
    """The median of 9 batches of 32 photos at 224 pixels, compilation not measured; and Keras's RandAugment photo by photo."""
    images = np.random.default_rng(0).uniform(0, 255, (32, 224, 224, 3)).astype(np.float32)
    policies = {
        "flip_rotate_zoom": POLICIES["flip_rotate_zoom"],
        "rand_augment": POLICIES["rand_augment"],
        "RandomBrightness, RandomContrast": resolve_policy(COLOURS),
    }
    for name, policy in policies.items():
        augment = Augmenter(policy)

        def batch(copy: int, augment: Any = augment) -> None:
            np.asarray(augment(images, [str(n) for n in range(32)], 0, "train", copy))

        print(f"\n{name}: {seconds(batch, 9) / 32 * 1e3:.2f} ms an image", end="")
    layer = keras.layers.RandAugment(dtype="float32")
    alone = seconds(lambda n: np.asarray(layer(images[n : n + 1], training=True)), 5)
    print(f"\nKeras's RandAugment, one photo a call: {alone * 1e3:.0f} ms an image")


def seconds(work: Any, times: int) -> float:
    """The median of `times` calls after one that is not measured."""
    taken = []
    for number in range(times + 1):
        started = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])
