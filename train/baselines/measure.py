"""`train baselines`: what the promoted models are compared with, on the same photos and by the same metrics."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from features.cache.feature_cache import FeatureCache, cache_for
from features.runtime.atomic import write_text
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import log, relative
from train.baselines.probes import Measured, linear_probe, most_frequent_class, nearest_neighbours
from train.baselines.simple_cnn import simple_cnn
from train.config import BaselinesConfig, SimpleCnnConfig, TrainRun
from train.ledger import record_test_evaluation

VERSION = 3
"""Raised when a baseline computes something else from the same settings."""

TEST_LABELS = "test_labels"
"""Key of an entry: the label that it gives each test photo, in the order of the index."""


class Baseline(NamedTuple):
    """`title` is what tables call it; `settings` is what its numbers depend on besides the photos and their features, None where
    the configuration leaves it out; `compute` measures it."""

    title: str
    settings: Callable[[BaselinesConfig], Any]
    compute: Callable[[TrainRun, FeatureCache], Measured]


def _simple_cnn(run: TrainRun, cache: FeatureCache) -> Measured:
    return simple_cnn(run, run.train.baselines.simple_cnn or SimpleCnnConfig())


BASELINES: dict[str, Baseline] = {
    "most_frequent": Baseline(
        "most frequent class", lambda _: {}, lambda run, cache: most_frequent_class(cache, run.evaluated_splits)
    ),
    "nearest_neighbours": Baseline(
        "k-nearest neighbours",
        lambda config: config.neighbours,
        lambda run, cache: nearest_neighbours(cache, run.train.baselines.neighbours, run.evaluated_splits),
    ),
    "linear_probe": Baseline(
        "linear probe", lambda _: {}, lambda run, cache: linear_probe(cache, run.evaluated_splits)
    ),
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

    Each has name, title, chosen (what validation chose), train, val and, where it was evaluated, test (Metrics), and seconds.
    Raises HeadhuntError where their file is damaged.
    """
    record = _load(workdir)
    return [_shown(name, record[name]) for name in BASELINES if name in record]


def named_by_baseline(run: TrainRun, cache: FeatureCache, name: str) -> list[int] | None:
    """The label that a baseline gives each test photo, in the order of the index; None where it was not evaluated on these."""
    entry = _load(run.workdir).get(name, {})
    return entry.get(TEST_LABELS) if entry.get("made_from") == _identity(run, cache, name) else None


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
        if run.train.evaluate_test:
            record_test_evaluation(run.workdir, "train baselines", BASELINES[name].title, len(cache.labels("test")))
        measured = BASELINES[name].compute(run, cache)
        entry = {
            "chosen": measured.chosen,
            **measured.metrics,
            "seconds": round(time.monotonic() - started, 1),
            "made_from": identity,
        }
        if run.train.evaluate_test:
            entry[TEST_LABELS] = measured.probabilities["test"].argmax(1).tolist()
        write_text(baselines_file(run.workdir), json.dumps({**_load(run.workdir), name: entry}, indent=1) + "\n")
    record = _load(run.workdir)
    return {
        "baselines": [_shown(name, record[name]) for name in names],
        "record": relative(baselines_file(run.workdir)),
    }


def _identity(run: TrainRun, cache: FeatureCache, name: str) -> str:
    """sha256 (hex) of everything that a baseline's numbers depend on."""
    parts = [VERSION, name, cache.key, BASELINES[name].settings(run.train.baselines), run.evaluated_splits]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _load(workdir: Path) -> dict[str, Any]:
    path = baselines_file(workdir)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not all(set(entry) >= {"chosen", "train", "val", "seconds", "made_from"} for entry in found.values()):
            raise ValueError("an entry is incomplete")
    except FileNotFoundError:
        return {}
    except (ValueError, OSError, AttributeError, TypeError) as error:
        raise HeadhuntError(
            f"{relative(path)} is damaged ({error}). Delete it, then run `headhunt train baselines`."
        ) from None
    return found


def _shown(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in entry.items() if key not in ("made_from", TEST_LABELS)}
    return {"name": name, "title": BASELINES[name].title, **shown}
