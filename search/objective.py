"""The objective as a task: train one trial from its state to the end of a rung, on any worker, without TensorFlow."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from features.cache import FeatureCache
from search.heads import feature_moments
from search.population import Program, Structure, TrainingData, TrialState, structure_of
from search.trial import Objective, TrialConfig, TrialResult


@dataclass(frozen=True)
class Task:
    """One trial up to `until` epochs, from `state` (None: from the start). Idempotent: the same task gives the same result.

    `copies` augmented copies of the cache in folder `cache` are held in memory; compiled programs are kept in `compiled`.
    """

    config: TrialConfig
    cache: Path
    compiled: Path
    copies: int
    state: TrialState | None
    until: int
    objective: Objective
    seed: int


@dataclass(frozen=True)
class Progressed:
    """The trial's state after a rung, with what to record of it."""

    state: TrialState
    result: TrialResult


def train_trial(task: Task) -> Progressed:
    """Trains on this worker; features and programs stay in the process for the next task."""
    import jax

    started = time.monotonic()
    _keep_programs(task.compiled)
    program = _program(structure_of(task.config), task.cache, task.copies)
    state = program.start(task.config) if task.state is None else replace(task.state, curves=list(task.state.curves))
    state = program.train(task.config, state, task.until, task.objective, task.seed)
    state.trainable, state.non_trainable, state.optimizer, state.best_trainable, state.best_non_trainable = (
        jax.device_get(
            (state.trainable, state.non_trainable, state.optimizer, state.best_trainable, state.best_non_trainable)
        )
    )
    weights = program.best_weights(state) if state.best_epoch else {}
    seconds = time.monotonic() - started
    return Progressed(state, TrialResult(tuple(state.curves), state.best_epoch, weights, state.failure, seconds))


@lru_cache(maxsize=64)
def _program(structure: Structure, cache: Path, copies: int) -> Program:
    return Program(structure, _data(cache, copies))


@lru_cache(maxsize=1)
def _data(folder: Path, copies: int) -> TrainingData:
    """The features of a cache with this many augmented copies, on the device."""
    import jax

    cache = FeatureCache.open(folder)
    train = [cache.arrays("train", copy) for copy in range(copies + 1)]
    val, val_labels = cache.arrays("val")
    labels = train[0][1]
    return TrainingData(
        jax.device_put(np.stack([features for features, _ in train])),
        jax.device_put(labels),
        jax.device_put(val),
        jax.device_put(val_labels),
        len(cache.class_names),
        feature_moments(train[0][0]),
    )


@lru_cache(maxsize=1)
def _keep_programs(folder: Path) -> None:
    """Compiled programs are kept on disk, for other workers and for the next run."""
    import jax

    os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "true")
    jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_threefry_partitionable", True)
