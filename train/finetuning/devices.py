"""Data-parallel training: every GPU of a promotion takes a share of each batch."""

from __future__ import annotations

from features.runtime.errors import UsageError


def use_devices(batch_size: int, at_most: int | None = None) -> int:
    """From now on, divides batches among the devices that this process sees, or the first `at_most`; returns their number.

    Uses Keras on JAX (keras.distribution.DataParallel); TensorFlow, the backend for CPUs, uses one device. Raises UsageError for
    batches that cannot be divided evenly.
    """
    import keras

    if keras.backend.backend() != "jax":
        return 1
    devices = keras.distribution.list_devices()[:at_most]
    if len(devices) == 1:
        return 1
    if batch_size % len(devices):
        raise UsageError(
            f"train.finetune.batch_size: {batch_size} cannot be divided among {len(devices)} devices. Set it to a multiple of "
            f"{len(devices)}, or change the number of GPUs per promotion (`train.workers.gpus`)."
        )
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False))
    return len(devices)
