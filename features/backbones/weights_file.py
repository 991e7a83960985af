"""Checks and loads `features.weights` given as a path: a weights file of this network, or a short error."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

from features.runtime.errors import UsageError

SUFFIXES = (".weights.h5", ".keras", ".h5")
"""Suffixes of files that Keras can load weights from."""


def check_weights_file(path: Path) -> None:
    """Raises UsageError when the file is not a weights file or is truncated. Needs neither Keras nor the network."""
    if not path.name.endswith(SUFFIXES):
        raise UsageError(_message(path, f"its name does not end in {', '.join(SUFFIXES)}", "a file that Keras wrote"))
    try:
        count_arrays(path)
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        reason = "it is truncated" if "truncated" in str(error) else "it is not a complete HDF5 file"
        if path.suffix == ".keras":
            reason = "it is not a complete .keras file"
        raise UsageError(_message(path, reason, "a file that Keras wrote")) from None


def load_weights(model: Any, path: Path, backbone: str) -> None:
    """Loads the weights of a file into the network `backbone` (a keras.Model without its top).

    Raises UsageError when they belong to another network.
    """
    check_weights_file(path)
    try:
        with warnings.catch_warnings(record=True) as told:  # a hundred lines, if it is another's file
            warnings.simplefilter("always")
            model.load_weights(path)
    except Exception as error:  # another network's file may fail anywhere
        found = count_arrays(path)
        given = f"its {found} arrays belong to another network"
        if path.name.endswith(".h5") and not path.name.endswith(".weights.h5") and found > len(model.weights):
            given += ", or to one with its top, which cannot be left out in this older format"
        expected = f"the {len(model.weights)} arrays of {backbone} without its top"
        raise UsageError(_message(path, given, expected)) from error
    for each in told:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def count_arrays(path: Path) -> int:
    """The number of arrays in a weights file."""
    import h5py  # a dependency of Keras

    source: Any = path
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            source = io.BytesIO(archive.read("model.weights.h5"))
    found = 0

    def count(name: str, item: Any) -> None:
        nonlocal found
        found += isinstance(item, h5py.Dataset) and "optimizer" not in name

    with h5py.File(source, "r") as file:
        file.visititems(count)
    return found


def _message(path: Path, given: str, expected: str) -> str:
    return (
        f"features.weights: {path} cannot be used: {given}.\n"
        f"  Expected: {expected}, as written by `model.save_weights('NAME.weights.h5')`.\n"
        "  Use such a file, or set features.backbone to the network of these weights (the path, for a complete .keras file)."
    )
