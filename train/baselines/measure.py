"""`train baselines`: what the promoted models are compared with, on the same photos and by the same metrics."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from features.atomic import write_text
from features.cache import FeatureCache, cache_for
from features.command import log, relative
from features.errors import UsageError
from train.baselines.probes import Measured, linear_probe, most_frequent_class, nearest_neighbours
from train.baselines.simple_cnn import simple_cnn
from train.config import BaselinesConfig, SimpleCnnConfig, TrainRun

VERSION = 2
"""Raised when a baseline computes something else from the same settings."""


class Baseline(NamedTuple):
    """`title` is what tables call it; `settings` is what its numbers depend on besides the photos and their features, None where
    the configuration leaves it out; `compute` measures it."""

    title: str
    settings: Callable[[BaselinesConfig], Any]
    compute: Callable[[TrainRun, FeatureCache], Measured]


def _simple_cnn(run: TrainRun, cache: FeatureCache) -> Measured:
    return simple_cnn(run, run.train.baselines.simple_cnn or SimpleCnnConfig())


BASELINES: dict[str, Baseline] = {
    "most_frequent": Baseline("most frequent class", lambda _: {}, lambda _, cache: most_frequent_class(cache)),
    "nearest_neighbours": Baseline(
        "k-nearest neighbours",
        lambda config: config.neighbours,
        lambda run, cache: nearest_neighbours(cache, run.train.baselines.neighbours),
    ),
    "linear_probe": Baseline("linear probe", lambda _: {}, lambda _, cache: linear_probe(cache)),
    "simple_cnn": Baseline(
        "simple CNN", lambda config: config.simple_cnn and config.simple_cnn.model_dump(mode="json"), _simple_cnn
    ),
}
"""Every baseline by its name in `--only`, in the order of the tables."""


def baselines_file(workdir: Path) -> Path:
    """Where a run's baselines are kept."""
    return workdir / "baselines.json"


def load_baselines(workdir: Path) -> list[dict[str, Any]]:
    """What the measured baselines reached, in the order of BASELINES; empty where none has been measured.

    Each has name, title, chosen (what validation chose), train, val and test (Metrics), and seconds.
    """
    record = _load(workdir)
    return [_shown(name, record[name]) for name in BASELINES if name in record]


def measure_baselines(run: TrainRun, only: str | None = None) -> dict[str, Any]:
    """Measures the baselines that the configuration asks for, or the one named; returns the `--json` object of `train baselines`.

    One that is measured already is not measured again, and each is written when it is done. Raises UsageError for a name that is
    none, or for the simple CNN where the configuration leaves it out; CacheError where there is no feature cache.
    """
    config = run.train.baselines
    if only is not None and only not in BASELINES:
        raise UsageError(f"--only: received {only!r}; allowed: {', '.join(BASELINES)}.")
    names = [name for name in BASELINES if only in (None, name) and BASELINES[name].settings(config) is not None]
    if not names:
        raise UsageError(
            f"--only {only}: the configuration leaves it out. Ask for it with `--set train.baselines.{only}={{}}`, or write its "
            "section into the file."
        )
    cache = cache_for(run)
    for name in names:
        identity = _identity(run, cache, name)
        if _load(run.workdir).get(name, {}).get("made_from") == identity:
            continue
        log.print(f"Baseline: {BASELINES[name].title}")
        started = time.monotonic()
        measured = BASELINES[name].compute(run, cache)
        entry = {
            "chosen": measured.chosen,
            **measured.metrics,
            "seconds": round(time.monotonic() - started, 1),
            "made_from": identity,
        }
        write_text(baselines_file(run.workdir), json.dumps({**_load(run.workdir), name: entry}, indent=1) + "\n")
    record = _load(run.workdir)
    return {
        "baselines": [_shown(name, record[name]) for name in names],
        "record": relative(baselines_file(run.workdir)),
    }


def _identity(run: TrainRun, cache: FeatureCache, name: str) -> str:
    """sha256 (hex) of everything that a baseline's numbers depend on."""
    parts = [VERSION, name, cache.key, BASELINES[name].settings(run.train.baselines)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _load(workdir: Path) -> dict[str, Any]:
    path = baselines_file(workdir)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _shown(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in entry.items() if key != "made_from"}
    return {"name": name, "title": BASELINES[name].title, **shown}
