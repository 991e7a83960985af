"""Batch normalisation before or after the activation: the same head, written plainly in Keras, on the clean cached features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from features.audit.moments import feature_moments
from features.cache.feature_cache import FeatureCache

EPOCHS, BATCH, RATE = 30, 64, 3e-3


def batch_norm_rows(out: Path, name: str, seeds: int) -> list[dict[str, Any]]:
    """Accuracy in percent after the last epoch, by place of the normalisation and seed. The data set's cache must be there."""
    manifest = next((out / name / "run" / "cache").glob("*/manifest.json"))
    cache = FeatureCache.open(manifest.parent)
    moments = feature_moments(cache.arrays("train")[0], cache.part_widths())
    rows = []
    for place in ("before", "after"):
        for seed in range(seeds):
            model = _trained(cache, moments, place == "before", seed)
            found = {split: _accuracy(model, cache, split) for split in ("val", "test")}
            rows.append({"set": name, "batch_norm": place, "seed": seed, **found})
    return rows


def _trained(cache: FeatureCache, moments: Any, before: bool, seed: int) -> Any:
    """Dense(256) with batch normalisation, ReLU and dropout 0.4, by AdamW with a warm-up and a cosine."""
    import keras

    keras.utils.set_random_seed(seed)
    features, labels = cache.arrays("train", dtype=np.float32)
    layers, classes, steps = keras.layers, len(cache.class_names), len(features) // BATCH * EPOCHS
    middle = [layers.BatchNormalization(), layers.ReLU()]
    model = keras.Sequential(
        [
            keras.Input(cache.shape_of()),
            layers.Normalization(mean=moments[0], variance=moments[1]),
            layers.Dense(256),
            *(middle if before else middle[::-1]),
            layers.Dropout(0.4),
            layers.Dense(classes),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=RATE, warmup_steps=steps // 10)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.2), loss)
    model.fit(features, np.eye(classes)[labels], BATCH, EPOCHS, verbose=0)
    return model


def _accuracy(model: Any, cache: FeatureCache, split: str) -> float:
    features, labels = cache.arrays(split, dtype=np.float32)
    return 100 * float((model.predict(features, verbose=0).argmax(1) == labels).mean())
