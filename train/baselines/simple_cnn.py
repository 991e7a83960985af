"""The simple CNN, a baseline: four convolutions with pooling and a hidden layer, trained from scratch on the photos."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from features.augmentation.augment import POLICIES, Augmenter
from features.dataset.index import load_index
from features.runtime.errors import HeadhuntError
from features.runtime.log import log
from features.runtime.workers.engine import start_keras
from search.ranking import Score
from train.baselines.probes import Measured
from train.config import SimpleCnnConfig, TrainRun
from train.evaluate import measure, predict
from train.finetuning.batches import training_epoch
from train.photos import Photos, PhotoViews

FILTERS = (32, 64, 128, 256)
"""Filters of the four convolutions."""

HIDDEN = 256
DROPOUT = 0.5


def build_simple_cnn(size: int, classes: int, seed: int) -> Any:
    """A keras.Model from photos (batch, size, size, 3) float32 in 0…255 to probabilities (batch, classes).

    Four blocks of 3×3 convolution and 2×2 max pooling, a hidden layer of 256, dropout 0.5. `seed` determines weights and dropout.
    """
    import keras
    from keras import layers

    inputs = keras.Input((size, size, 3), dtype="float32", name="photos")
    x = layers.Rescaling(1 / 255)(inputs)
    for number, filters in enumerate(FILTERS):
        initial = keras.initializers.GlorotUniform(seed + number)
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer=initial)(x)
        x = layers.MaxPooling2D()(x)
    initial = keras.initializers.GlorotUniform(seed + len(FILTERS))
    x = layers.Dense(HIDDEN, activation="relu", kernel_initializer=initial)(layers.Flatten()(x))
    x = layers.Dropout(DROPOUT, seed=seed)(x)
    initial = keras.initializers.GlorotUniform(seed + len(FILTERS) + 1)
    outputs = layers.Dense(classes, activation="softmax", kernel_initializer=initial)(x)
    return keras.Model(inputs, outputs, name="simple_cnn")


def simple_cnn(run: TrainRun, config: SimpleCnnConfig) -> Measured:
    """Trains the CNN on the unaugmented training photos and measures it with the weights of the best validation accuracy.

    Raises HeadhuntError if the loss is not finite.
    """
    start_keras(run.backend)
    import keras

    index = load_index(run)
    sized = run.features.model_copy(update={"image_size": (config.image_size, config.image_size)})
    photos = {split: Photos(run.model_copy(update={"features": sized}), index, split) for split in run.evaluated_splits}
    classes = len(index.class_names)
    network = build_simple_cnn(config.image_size, classes, config.seed)
    network.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss="categorical_crossentropy",
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )
    shown = PhotoViews(photos["train"], Augmenter(POLICIES["none"]), config.seed, clean_share=1.0)
    best_epoch, best_score = 0, Score(math.inf, math.inf)
    best: list[npt.NDArray[np.float32]] = []
    for epoch in range(config.epochs):
        with training_epoch(shown, epoch, config.batch_size, classes, config.seed) as data:
            loss = network.fit(data, epochs=1, verbose=0, shuffle=False).history["loss"][0]
        if not np.isfinite(loss):
            raise HeadhuntError(
                f"the simple CNN's loss is not finite in epoch {epoch + 1} (learning rate {config.learning_rate:.3g}). Lower "
                "`train.baselines.simple_cnn.learning_rate`."
            )
        measured = measure(predict(network, photos["val"], config.batch_size), photos["val"].labels)
        score = measured.score("val_accuracy")
        if score < best_score:
            best_epoch, best_score, best = epoch + 1, score, network.get_weights()
        mark = " (best)" if best_epoch == epoch + 1 else ""
        log.print(f"  epoch {epoch + 1}/{config.epochs}: loss {loss:.3f}, val accuracy {measured.accuracy:.4f}{mark}")
        if epoch + 1 - best_epoch >= config.early_stopping_epochs:
            break
    network.set_weights(best)
    predicted = {split: predict(network, found, config.batch_size) for split, found in photos.items()}
    return Measured(predicted, {split: found.labels for split, found in photos.items()}, {"epoch": best_epoch})
