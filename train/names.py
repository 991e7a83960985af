"""Names that the command line lists before anything is loaded."""

from __future__ import annotations

MODEL_FORMATS = ("keras", "savedmodel", "onnx", "litert")
"""Export formats that hold a model."""

FORMATS = (*MODEL_FORMATS, "config")
"""Every export format."""

BASELINES = ("most_frequent", "nearest_neighbours", "linear_probe", "simple_cnn")
"""What promoted models are compared with."""
