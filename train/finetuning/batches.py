"""The batches of an epoch of training, from photos or from cached activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.cache.views import order_of_epoch

AHEAD = 3
"""Number of batches prepared ahead while the model trains."""


class TrainSource(Protocol):
    """Training examples, each available as one of several copies."""

    labels: npt.NDArray[np.int32]

    def copies_of_epoch(self, epoch: int) -> npt.NDArray[np.int32]:
        """Which copy of each example epoch `epoch` (from 0) shows, 0 = clean: (n,) int32."""
        ...

    def shown(self, positions: npt.NDArray[np.int64], copies: npt.NDArray[np.int32]) -> npt.NDArray[np.floating]:
        """The model inputs for the examples at these positions, each as its copy."""
        ...


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Full batches per epoch, at least one; the examples left over differ in every epoch."""
    return max(1, images // batch_size)


@contextmanager
def training_epoch(source: TrainSource, epoch: int, batch_size: int, classes: int, seed: int) -> Iterator[Any]:
    """The batches of epoch `epoch` (from 0) as a keras PyDataset: examples and labels (batch, classes) one-hot.

    All batches have the same shape, so that programs are compiled once and a batch can be divided among devices. Order and copies
    are pure functions of (seed, epoch). A thread prepares the next batches while the model trains, since Keras prepares nothing
    ahead with one worker and does not keep the order with several.

    Afterwards the dataset releases its thread and the source: TensorFlow keeps every dataset that a model was fitted with, and a
    process makes many promotions.
    """
    import keras

    images = len(source.labels)
    order, copies = order_of_epoch(epoch, images, seed), source.copies_of_epoch(epoch)
    one_hot = np.eye(classes, dtype=np.float32)
    steps = steps_per_epoch(images, batch_size)

    def prepare(number: int) -> tuple[Any, Any]:
        chosen = order[number * batch_size : (number + 1) * batch_size]
        return source.shown(chosen, copies[chosen]), one_hot[source.labels[chosen]]

    class Epoch(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self, prepare: Callable[[int], tuple[Any, Any]]) -> None:
            super().__init__(workers=1, use_multiprocessing=False)
            self._prepare: Callable[[int], tuple[Any, Any]] | None = prepare
            self._thread = ThreadPoolExecutor(1, "batches")
            self._ahead: dict[int, Future[tuple[Any, Any]]] = {}

        def __len__(self) -> int:
            return steps

        def __getitem__(self, number: int) -> tuple[Any, Any]:
            for coming in range(number, min(number + 1 + AHEAD, steps)):
                if coming not in self._ahead:
                    assert self._prepare is not None, "the epoch is over"
                    self._ahead[coming] = self._thread.submit(self._prepare, coming)
            return self._ahead.pop(number).result()

        def close(self) -> None:
            self._thread.shutdown(cancel_futures=True)
            self._prepare = None
            self._ahead.clear()

    batches = Epoch(prepare)
    try:
        yield batches
    finally:
        batches.close()
