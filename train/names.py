"""Names for the command line's help, available without heavy imports."""

from __future__ import annotations

MODEL_FORMATS = ("keras", "savedmodel", "onnx", "litert")
"""Export formats that hold a model."""

FORMATS = (*MODEL_FORMATS, "config")
"""Every export format."""

BASELINES = ("most_frequent", "nearest_neighbours", "linear_probe", "simple_cnn")
"""The baselines that promoted models are compared with."""
