"""`features.weights` as a path: is it a file of weights, and of this network? If not: a short message."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

from features.runtime.errors import UsageError

SUFFIXES = (".weights.h5", ".keras", ".h5")
"""That Keras loads weights from."""


def check_weights_file(path: Path) -> None:
    """UsageError where the file is none of weights, or cut short. Opens it; neither Keras nor the network is needed."""
    if not path.name.endswith(SUFFIXES):
        raise UsageError(_message(path, f"its name does not end in {', '.join(SUFFIXES)}", "a file that Keras wrote"))
    try:
        count_arrays(path)
    except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        reason = "it is cut short" if "truncated" in str(error) else "it is no whole HDF5 file"
        if path.suffix == ".keras":
            reason = "it is not a complete .keras file"
        raise UsageError(_message(path, reason, "a file that Keras wrote")) from None


def load_weights(model: Any, path: Path, backbone: str) -> None:
    """Gives the network `backbone` (a keras.Model without its top) the weights of a file.

    Raises UsageError where they are of another network.
    """
    check_weights_file(path)
    try:
        model.load_weights(path)
    except Exception as error:  # a foreign file gets as far as it gets
        found = count_arrays(path)
        given = f"its {found} arrays are of another network"
        if path.name.endswith(".h5") and not path.name.endswith(".weights.h5") and found > len(model.weights):
            given += ", or of one with its top, which this older format cannot leave out"
        expected = f"the {len(model.weights)} arrays of {backbone} without its top"
        raise UsageError(_message(path, given, expected)) from error


def count_arrays(path: Path) -> int:
    """The arrays in a file of weights."""
    import h5py  # Keras itself needs it

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
        f"  Expected: {expected}, as `model.save_weights('NAME.weights.h5')` writes them.\n"
        "  Name such a file, or set features.backbone to the network that the weights are of (a whole .keras network: its path)."
    )
