"""A task: a few trials of one structure, trained to the end of a rung on any worker, without TensorFlow."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from search.driver.worklog import this_worker
from search.metric import Metric
from search.population.probing import solve_probe
from search.population.program import Program
from search.population.sources import Features, Source, load_features, zeros_for_cache_lines
from search.population.structure import Structure, structure_of
from search.trial import TrialConfig, TrialResult, TrialState, WorkSpan


@dataclass(frozen=True)
class Task:
    """Trials of one structure up to `until` epochs, from `states` (None: from the start). Idempotent: the same task gives the
    same results.

    `sources` are held in memory; compiled programs are stored in the folder `compiled`. `lanes` trials are trained side by side.
    Batches and views follow `seed`, or `seeds`, one per trial. `train_share` of each class's training photos are used. `folder`
    may contain the module of a hypermodel.
    """

    configs: tuple[TrialConfig, ...]
    states: tuple[TrialState | None, ...]
    sources: tuple[Source, ...]
    compiled: Path
    until: int
    objective: Metric
    seed: int
    lanes: int
    seeds: tuple[int, ...] | None = None
    train_share: float = 1.0
    folder: Path | None = None


def train_trials(task: Task) -> list[TrialResult]:
    """Trains a task on this worker; features and programs stay in the process for the next task. Thread-safe."""
    if task.configs[0].is_probe:
        return [_solved(task, config) for config in task.configs]
    began, started = time.time(), time.monotonic()
    with _LOCK:
        _keep_programs(task.compiled)
        program = _program(structure_of(task.configs[0]), task.sources, task.train_share)
    states = [state or program.start(config) for config, state in zip(task.configs, task.states, strict=True)]
    had = [len(state.curves) for state in states]
    states = _train(program, task, task.configs, states, task.seeds or (task.seed,) * len(states))
    seconds = (time.monotonic() - started) / len(states)
    spans = [WorkSpan(this_worker(), began, len(s.curves) - n) for s, n in zip(states, had, strict=True)]
    return [_result(program, *each, seconds) for each in zip(task.configs, states, spans, strict=True)]


def failed_results(task: Task, reason: str) -> list[TrialResult]:
    """Fallback results for a task that failed permanently: each trial fails for `reason`, after the epochs it already had."""
    had = [(tuple(state.curves), state.best_epoch) if state else ((), 0) for state in task.states]
    return [TrialResult(curves, best, {}, reason, 0.0) for curves, best in had]


def _train(
    program: Program, task: Task, configs: Sequence[TrialConfig], states: Sequence[TrialState], seeds: Sequence[int]
) -> list[TrialState]:
    """Trains to the end of the rung. Trials that do not fit into memory together are split in half; one that does not fit alone
    fails."""
    import jax

    try:
        return program.train(configs, states, task.until, task.objective, seeds, task.lanes)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        if len(configs) == 1:
            return [replace(states[0], failure=f"out of memory: {str(error).splitlines()[0]}")]
    half = len(configs) // 2
    first, second = slice(half), slice(half, None)
    return _train(program, task, configs[first], states[first], seeds[first]) + _train(
        program, task, configs[second], states[second], seeds[second]
    )


def _solved(task: Task, config: TrialConfig) -> TrialResult:
    """Solves a probe, which needs no program, epochs or seed."""
    began, started = time.time(), time.monotonic()
    with _LOCK:
        data = _data(task.sources, task.train_share)
    solved = solve_probe(config, data)
    seconds = time.monotonic() - started
    if not np.isfinite([solved.metrics.loss, solved.metrics.val_loss]).all():
        failure = "the probe's loss is not finite: the features contain NaN or are too large"
        span = WorkSpan(this_worker(), began, 0)
        return TrialResult((), 0, {}, failure, seconds, span=span, config=solved.config)
    span, weights = WorkSpan(this_worker(), began, 1), dict(solved.weights)
    return TrialResult((solved.metrics,), 1, weights, None, seconds, solved.doubts, span=span, config=solved.config)


def _result(program: Program, config: TrialConfig, state: TrialState, span: WorkSpan, seconds: float) -> TrialResult:
    ended = state.failure is not None or len(state.curves) >= config.epochs
    weights = program.best_weights(config, state) if ended and not state.failure else {}
    left = None if ended else state
    return TrialResult(tuple(state.curves), state.best_epoch, weights, state.failure, seconds, state=left, span=span)


_LOCK = threading.Lock()
"""Held while features are read and models are built, so that threads do not duplicate the work."""


@lru_cache(maxsize=64)
def _program(structure: Structure, sources: tuple[Source, ...], train_share: float) -> Program:
    return Program(structure, _data(sources, train_share))


@lru_cache(maxsize=1)
def _data(sources: tuple[Source, ...], train_share: float) -> Features:
    """The features that trials train on, on the device."""
    import jax

    found = load_features(sources).with_part(train_share)
    if jax.default_backend() == "cpu":
        found = found.with_zeros(zeros_for_cache_lines(found.shape))
    names = ("train", "train_labels", "val", "val_labels")
    return replace(found, **{name: jax.device_put(getattr(found, name)) for name in names})


@lru_cache(maxsize=1)
def _keep_programs(folder: Path) -> None:
    """Keeps compiled programs on disk, for other workers and the next run: in `folder`, unless JAX_COMPILATION_CACHE_DIR names
    another."""
    import jax

    os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "true")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(folder.resolve()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_threefry_partitionable", True)
