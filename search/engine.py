"""How a search computes: Keras on JAX, and how many trials train side by side."""

from __future__ import annotations

from search.config import SearchRun

GPU_LANES = 64
"""Default number of trials that a GPU trains side by side (`search.lanes`)."""


def environment(run: SearchRun) -> dict[str, str]:
    """Environment variables that Keras and JAX need before they are imported, here and in workers."""
    backend = {"KERAS_BACKEND": "jax", "JAX_THREEFRY_PARTITIONABLE": "1"}
    return backend if run.search.workers.gpus else {**backend, "JAX_PLATFORMS": "cpu"}


def lanes_of(run: SearchRun) -> int:
    """How many trials train side by side; the rounding of sums depends on it."""
    return run.search.lanes or (GPU_LANES if run.search.workers.gpus else 1)
