"""How a search computes: Keras on JAX, and how many trainings side by side."""

from __future__ import annotations

from search.config import SearchRun

GPU_LANES = 64
"""Trials that a GPU trains side by side where `search.lanes` does not say otherwise."""


def environment(run: SearchRun) -> dict[str, str]:
    """What Keras and JAX need to know before they are imported, here and in workers."""
    backend = {"KERAS_BACKEND": "jax", "JAX_THREEFRY_PARTITIONABLE": "1"}
    return backend if run.search.workers.gpus else {**backend, "JAX_PLATFORMS": "cpu"}


def lanes_of(run: SearchRun) -> int:
    """How many trainings run side by side; the rounding of sums depends on it."""
    return run.search.lanes or (GPU_LANES if run.search.workers.gpus else 1)
