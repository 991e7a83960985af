"""A model file of any format as a function from uint8 photos to probabilities, run by the format's stock runtime.

Export checks its files with it, and `train predict` uses it: no Headhunt code lies between a file and its predictions.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.backbones.keras_file import keras_file_damage
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.workers.engine import quiet, start_keras

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]

EXTRA = "pip install 'headhunt[export]'"
"""The command that installs the runtimes missing from the plain installation."""


class Loaded(NamedTuple):
    """A model ready to run.

    `input_shape` has the batch first and None for any size; `run` maps (n, height, width, 3) uint8 RGB to (n, classes) float32.
    """

    input_shape: tuple[int | None, ...]
    input_dtype: str
    run: Callable[[Pixels], Probabilities]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the photos; UsageError unless the model takes uint8 RGB photos of a fixed size."""
        if self.input_dtype != "uint8" or len(self.input_shape) != 4 or self.input_shape[3] != 3:
            raise UsageError(
                f"the model takes {self.input_dtype} inputs of shape {self.input_shape}; it must take uint8 photos "
                "(n, height, width, 3). Use a model written by `headhunt train export`."
            )
        height, width = self.input_shape[1:3]
        if height is None or width is None:
            raise UsageError(f"the model takes photos of any size, {self.input_shape}; it must have a fixed size.")
        return height, width


class Runtime(NamedTuple):
    """How to run a format: its file name in a bundle, the runtime's display name, its loader, and the modules it needs."""

    file: str
    name: str
    load: Callable[[Path], Loaded]
    packages: tuple[str, ...]
    """The packages whose versions decide what the format predicts."""
    modules: tuple[str, ...] = ()
    """Modules to run it, beyond the plain installation."""
    writers: tuple[str, ...] = ()
    """Further modules to write it."""


def missing(format_: str, writing: bool = False) -> list[str]:
    """The modules that this format needs but that are not installed."""
    runtime = RUNTIMES[format_]
    wanted = (*runtime.writers, *runtime.modules) if writing else runtime.modules
    return [module for module in wanted if importlib.util.find_spec(module) is None]


def versions(format_: str) -> str:
    """The packages that run a format and their versions, e.g. `keras 3.15.1, tensorflow 2.21.0`."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in RUNTIMES[format_].packages)


def packages(modules: list[str]) -> str:
    """The package names of modules, joined for a message."""
    *first, last = [module.replace("_", "-") for module in modules]
    return f"{', '.join(first)} and {last}" if first else last


def format_of(path: Path) -> str:
    """The format of a model file or SavedModel folder; UsageError for anything else."""
    if not path.exists():
        raise UsageError(f"there is no model at {path}. Write one with `headhunt train export`.")
    if path.is_dir() and (path / "saved_model.pb").exists():
        return "savedmodel"
    by_suffix = {Path(runtime.file).suffix: name for name, runtime in RUNTIMES.items() if Path(runtime.file).suffix}
    if path.is_dir() or path.suffix not in by_suffix:
        raise UsageError(
            f"{path} is not a model; it must be a file of type {', '.join(by_suffix)}, the folder of a SavedModel, or a bundle's "
            "folder."
        )
    return by_suffix[path.suffix]


def load_model(path: Path, format_: str) -> Loaded:
    """Loads a model with the stock runtime of its format.

    Raises UsageError if the runtime is not installed, HeadhuntError if it cannot read the file.
    """
    runtime = RUNTIMES[format_]
    lacking = missing(format_)
    if lacking:
        raise UsageError(
            f"{path} needs {packages(lacking)}, not installed. Run `{EXTRA}`, or choose another --format: "
            f"{', '.join(name for name in RUNTIMES if not missing(name))}."
        )
    try:
        if format_ == "keras" and (damage := keras_file_damage(path)):
            raise ValueError(f"it is damaged ({damage})")
        return runtime.load(path)
    except HeadhuntError:
        raise
    except Exception as error:  # runtimes raise anything for a damaged or foreign file
        reason = str(error).strip().splitlines() or [type(error).__name__]
        again = "Restore a copy of it, or export it again with `headhunt train export`."
        raise HeadhuntError(f"{runtime.name} cannot load {path}: {reason[0].rstrip('.')}. {again}") from error


def _keras(path: Path) -> Loaded:
    start_keras("tensorflow")
    import keras

    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    inputs = model.inputs[0]

    def run(pixels: Pixels) -> Probabilities:
        return np.asarray(model.predict_on_batch(pixels), np.float32)

    return Loaded(tuple(inputs.shape), str(inputs.dtype), run)


def _savedmodel(path: Path) -> Loaded:
    with quiet():
        import tensorflow as tf

        restored = tf.saved_model.load(str(path))
        serve = restored.signatures["serving_default"]
    ((name, spec),) = serve.structured_input_signature[1].items()

    def run(pixels: Pixels, owner: Any = restored) -> Probabilities:  # `serve` alone does not keep its variables alive
        (outputs,) = serve(**{name: tf.constant(pixels)}).values()
        return np.asarray(outputs.numpy(), np.float32)

    return Loaded(tuple(spec.shape.as_list()), str(spec.dtype.name), run)


def _onnx(path: Path) -> Loaded:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (inputs,) = session.get_inputs()
    shape = tuple(size if isinstance(size, int) else None for size in inputs.shape)

    def run(pixels: Pixels) -> Probabilities:
        (outputs,) = session.run(None, {inputs.name: pixels})
        return np.asarray(outputs, np.float32)

    return Loaded(shape, inputs.type.removeprefix("tensor(").removesuffix(")"), run)


def _litert(path: Path) -> Loaded:
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
        interpreter.allocate_tensors()
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(pixels: Pixels) -> Probabilities:
        if tuple(interpreter.get_input_details()[0]["shape"]) != pixels.shape:
            with quiet():
                interpreter.resize_tensor_input(inputs["index"], pixels.shape)
                interpreter.allocate_tensors()
        interpreter.set_tensor(inputs["index"], pixels)
        interpreter.invoke()
        return np.array(interpreter.get_tensor(outputs["index"]), np.float32)

    shape = tuple(None if size < 0 else int(size) for size in inputs["shape_signature"])
    return Loaded(shape, np.dtype(inputs["dtype"]).name, run)


RUNTIMES: dict[str, Runtime] = {
    "keras": Runtime("model.keras", "Keras", _keras, ("keras", "tensorflow")),
    "savedmodel": Runtime("savedmodel", "TensorFlow", _savedmodel, ("tensorflow",)),
    "onnx": Runtime("model.onnx", "onnxruntime", _onnx, ("onnxruntime",), ("onnxruntime",), ("tf2onnx", "onnx")),
    "litert": Runtime("model.tflite", "LiteRT", _litert, ("ai-edge-litert",), ("ai_edge_litert",)),
}
"""Every model format by its name in `--format`; `predict` uses the first one in a bundle."""
