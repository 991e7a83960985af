"""One Keras backend per process, chosen before Keras is first imported."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from features.runtime.errors import HeadhuntError
from features.runtime.workers.keras_internals import hide_tensorflow


def start_keras(backend: str) -> None:
    """Imports Keras with `backend` (tensorflow or jax). Raises HeadhuntError if this process already uses another backend."""
    loaded = sys.modules.get("keras")
    if loaded is not None and loaded.backend.backend() != backend:
        raise HeadhuntError(
            f"this process already uses Keras on {loaded.backend.backend()}, but the stage needs {backend}, and a process cannot "
            "switch. Run the stage with its own command, or in worker processes (`workers.executor: auto`)."
        )
    os.environ["KERAS_BACKEND"] = backend
    with quiet():
        keras = importlib.import_module("keras")
        keras.config.set_image_data_format("channels_last")  # whatever the user's keras.json says
        keras.config.set_floatx("float32")
        if backend == "tensorflow":
            importlib.import_module("tensorflow").config.list_physical_devices()
    keep_tensorflow_out()


def keep_tensorflow_out() -> None:
    """On other backends, keeps Keras from importing TensorFlow when it serialises a layer's configuration, which would take
    seconds and part of a GPU's memory."""
    keras = importlib.import_module("keras")
    if keras.backend.backend() != "tensorflow" and "tensorflow" not in sys.modules:
        hide_tensorflow()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled by Keras's backend; traced once per argument shape.

    TensorFlow compiles without XLA, whose convolutions are slow on a CPU.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)  # type: ignore[no-any-return]
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)  # type: ignore[no-any-return]
    return function


@contextmanager
def quiet() -> Iterator[None]:
    """Hides the C++ log output of TensorFlow and other runtimes; log levels do not cover all of it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
