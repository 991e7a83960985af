"""All uses of Keras's private API.

`tests/features/test_internals.py` shows which of them changed in a new version of Keras.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any


def parts_of(layer: Any, with_itself: bool = True) -> Iterator[Any]:
    """All layers inside a layer or model, at any depth, and (`with_itself`) the layer itself."""
    found: Iterator[Any] = layer._flatten_layers(include_self=with_itself)
    return found


def hide_tensorflow() -> None:
    """Keeps Keras on other backends from importing TensorFlow to check whether a value it serialises is TensorFlow's."""
    importlib.import_module("keras.src.utils.module_utils").tensorflow._available = False


def learning_rate_variable(optimizer: Any) -> Any:
    """The variable that holds an optimiser's learning rate."""
    return optimizer._learning_rate
