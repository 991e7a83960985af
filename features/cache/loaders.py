"""A cache's batches for training loops: for Keras, for tf.data, or plain. Only the batch is held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features.cache.shards import MappedFeatures
from features.cache.views import Views, order_of_epoch

Batch = tuple[npt.NDArray[np.floating], npt.NDArray[np.int32]]
"""Features (batch, *feature_shape) in the stored dtype, labels (batch,) int32."""


class EpochBatches:
    """The batches of a split, epoch by epoch; the last one of an epoch may be smaller. See `FeatureCache.batches`.

    `copies` are the clean features (0) and the augmented copies that the views draw from, by number.

    The copies and order of an epoch are pure functions of (seed, epoch), the same as in the search's trials.
    """

    def __init__(
        self,
        copies: Sequence[MappedFeatures],
        labels: npt.NDArray[np.int32],
        batch_size: int,
        views: Views,
        seed: int,
        shuffle: bool,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size >= 1` must hold, but got {batch_size}")
        self._copies = copies
        self._labels = labels
        self._batch_size = batch_size
        self._views = views
        self._seed = seed
        self._shuffle = shuffle

    def __len__(self) -> int:
        """The number of batches per epoch."""
        return -(-len(self._labels) // self._batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of epoch `epoch` (from 0)."""
        plan = self._plan(epoch)
        for number in range(len(self)):
            yield self._batch(plan, number)

    def keras_dataset(self, workers: int = 1, max_queue_size: int = 10) -> Any:
        """A keras.utils.PyDataset that advances to the next epoch's copies and order in `on_epoch_end`.

        Call `fit` with shuffle=False, since batches are already shuffled. `workers` are threads.
        """
        import keras

        batches = self

        class Epochs(keras.utils.PyDataset):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__(workers=workers, use_multiprocessing=False, max_queue_size=max_queue_size)
                self.epoch = 0
                self._planned = batches._plan(0)
                self._ended = False

            def __len__(self) -> int:
                return len(batches)

            def __getitem__(self, number: int) -> Batch:
                self._ended = self._ended or number == len(batches) - 1
                return batches._batch(self._planned, number)

            def on_epoch_end(self) -> None:
                if self._ended:  # Keras also calls this after reading the first batch to build the model
                    self.epoch, self._ended = self.epoch + 1, False
                    self._planned = batches._plan(self.epoch)

        return Epochs()

    def tf_dataset(self) -> Any:
        """A tf.data.Dataset of one epoch's batches; each iteration over it is the next epoch."""
        import itertools

        import tensorflow as tf

        features = tf.TensorSpec((None, *self._copies[0].shape[1:]), self._copies[0].dtype)
        counter = itertools.count()
        dataset = tf.data.Dataset.from_generator(
            lambda: self.epoch(next(counter)), output_signature=(features, tf.TensorSpec((None,), tf.int32))
        )
        return dataset.apply(tf.data.experimental.assert_cardinality(len(self))).prefetch(tf.data.AUTOTUNE)

    def _plan(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """The order of the photos (n,), and the copy of each photo (n,), indexed by photo."""
        images = len(self._labels)
        order = order_of_epoch(epoch, images, self._seed) if self._shuffle else np.arange(images)
        return order, self._views.of_epoch(epoch, images, self._seed)

    def _batch(self, plan: tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]], number: int) -> Batch:
        order, copies = plan
        rows = order[number * self._batch_size : (number + 1) * self._batch_size]
        return gather(self._copies, rows, copies[rows]), self._labels[rows]


def gather(
    copies: Sequence[MappedFeatures], rows: npt.NDArray[np.int64], numbers: npt.NDArray[np.int32]
) -> npt.NDArray[np.floating]:
    """The features of these rows, each from the copy in `numbers`: (len(rows), *feature_shape) in the stored dtype."""
    features = np.empty((len(rows), *copies[0].shape[1:]), copies[0].dtype)
    for number in np.unique(numbers):
        chosen = numbers == number
        features[chosen] = copies[number][rows[chosen]]
    return features
