"""What Headhunt uses of Keras beyond its public interface, all in one place.

`tests/features/test_internals.py` says which of these has changed in another version of Keras.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any


def parts_of(layer: Any, with_itself: bool = True) -> Iterator[Any]:
    """The layers in a layer or model, at any depth, and itself."""
    found: Iterator[Any] = layer._flatten_layers(include_self=with_itself)
    return found


def hide_tensorflow() -> None:
    """Keeps Keras on another backend from importing TensorFlow to see whether what it serialises is of it."""
    importlib.import_module("keras.src.utils.module_utils").tensorflow._available = False


def learning_rate_variable(optimizer: Any) -> Any:
    """The variable that holds an optimiser's learning rate."""
    return optimizer._learning_rate
