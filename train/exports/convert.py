"""Converts the promoted network to each format with Keras's own exporters and tf2onnx."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from features.runtime.errors import HeadhuntError
from features.runtime.workers.engine import quiet, start_keras

OPSET = 18
"""ONNX opset; onnxruntime reads it since 1.14 (2023)."""


def convert(source: Path, target: Path, format_: str) -> None:
    """Writes the `.keras` file `source` to `target` in another format, with a free batch size. LiteRT takes a SavedModel, too.

    Raises HeadhuntError if the network has a layer that the format cannot express, OSError if the file cannot be written.
    """
    try:
        with _calm():
            CONVERTERS[format_](source, target)
    except (HeadhuntError, OSError):
        raise
    except Exception as error:  # converters raise whatever their libraries raise
        if (full := os.strerror(errno.ENOSPC)) in str(error):  # TensorFlow's error of a full disk
            raise OSError(errno.ENOSPC, full) from error
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise HeadhuntError(
            f"{source} cannot be exported as {format_}: {reason[0].rstrip('.')}. Leave this format out of --format, or choose a "
            "backbone of stock layers."
        ) from error


def _keras(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _savedmodel(source: Path, target: Path) -> None:
    model, photos = _load(source)
    model.export(target, verbose=False, input_signature=[photos], format="tf_saved_model")


def _onnx(source: Path, target: Path) -> None:
    """Converts a frozen graph: Keras's own exporter mistakes the moments of a Normalization layer, which are not variables, for
    inputs of the model."""
    import tensorflow as tf
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model, photos = _load(source)
    serve = tf.function(lambda pixels: model(pixels, training=False))
    frozen = convert_variables_to_constants_v2(
        serve.get_concrete_function(tf.TensorSpec(photos.shape, photos.dtype, photos.name))
    )
    (inputs,), (outputs,) = frozen.inputs, frozen.outputs
    tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[inputs.name],
        output_names=[outputs.name],
        tensors_to_rename={inputs.name: "photos", outputs.name: "probabilities"},
        opset=OPSET,
        output_path=target,
        custom_op_handlers={"Erfc": (_erfc, [])},
    )


def _erfc(graph: Any, node: Any, name: str, arguments: Any) -> None:
    """Expresses Erfc as 1 - Erf: Keras's gelu uses TensorFlow's Erfc, which ONNX and tf2onnx lack."""
    import numpy as np

    one = graph.make_const(f"{name}_one", np.array(1, np.float32)).output[0]
    erf = graph.make_node("Erf", node.input).output[0]
    graph.remove_node(name)
    graph.make_node("Sub", [one, erf], name=name, outputs=node.output, domain="")


def _litert(source: Path, target: Path) -> None:
    """Converts the SavedModel, as Keras's exporter does, but to built-in operations only: the stock runtime has no others, and a
    network that needs more must fail here."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory(prefix=".savedmodel.", suffix=".tmp", dir=target.parent) as folder:
        if not source.is_dir():
            _savedmodel(source, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(str(source if source.is_dir() else folder))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.experimental_enable_resource_variables = True
        target.write_bytes(converter.convert())


def _load(source: Path) -> tuple[Any, Any]:
    """The network on TensorFlow, which the converters need, and its input as a keras.InputSpec with a free batch size."""
    return _loaded(source, source.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _loaded(source: Path, changed_ns: int) -> tuple[Any, Any]:
    """Loads the network once for all formats; a changed modification time reloads it."""
    start_keras("tensorflow")
    import keras

    model = keras.saving.load_model(source, compile=False, safe_mode=True)
    (inputs,) = model.inputs
    return model, keras.InputSpec(shape=(None, *inputs.shape[1:]), dtype=inputs.dtype, name=inputs.name)


@contextmanager
def _calm() -> Iterator[None]:
    """Hides the converters' internal messages: C++ logs, Python logs and warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


CONVERTERS: dict[str, Callable[[Path, Path], None]] = {
    "keras": _keras,
    "savedmodel": _savedmodel,
    "onnx": _onnx,
    "litert": _litert,
}
"""Converters by format: (`.keras` file, target path)."""
