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
    """Imports Keras on `backend` (tensorflow or jax); HeadhuntError when this process has it on another one already."""
    loaded = sys.modules.get("keras")
    if loaded is not None and loaded.backend.backend() != backend:
        raise HeadhuntError(
            f"this process runs Keras on {loaded.backend.backend()}, but the stage needs {backend}: a process has one backend "
            "for its life. Run the stage with its own command, or on workers of its own (`workers.executor: auto`)."
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
    """Where Keras runs on another backend, keeps it from importing TensorFlow to see whether what it serialises is of it: to ask
    any layer for its configuration would take seconds, and a part of a GPU's memory."""
    keras = importlib.import_module("keras")
    if keras.backend.backend() != "tensorflow" and "tensorflow" not in sys.modules:
        hide_tensorflow()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a compiled program of Keras's backend: traced once for each shape of its arguments.

    Without XLA on TensorFlow, where it is slow for convolutions on a CPU.
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
    """Keeps what the C++ of TensorFlow and other runtimes says of itself off the terminal; log levels do not cover it all."""
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
