"""`train baselines`: baselines for the promoted models, on the same photos and with the same metrics."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, RootModel, SerializerFunctionWrapHandler, ValidationError, model_serializer

from features.cache.feature_cache import FeatureCache, cache_for
from features.runtime.atomic import write_text
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import log, relative
from train.baselines.probes import Measured, linear_probe, most_frequent_class, nearest_neighbours
from train.baselines.simple_cnn import simple_cnn
from train.config import BaselinesConfig, SimpleCnnConfig, TrainRun
from train.evaluate import Metrics, SplitMetrics
from train.ledger import record_test_evaluation

VERSION = 3
"""Increased when a baseline's results change for the same settings."""


class Baseline(NamedTuple):
    """`title` is its name in tables; `settings` gives what its numbers depend on besides the photos and their features, None if
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
        "simple CNN", lambda config: config.simple_cnn and config.simple_cnn.model_dump(), _simple_cnn
    ),
}
"""Every baseline by its name in `--only`, in table order."""


def baselines_file(workdir: Path) -> Path:
    """`baselines.json`."""
    return workdir / "baselines.json"


class BaselineResult(BaseModel):
    """An entry of baselines.json: what validation chose, the metrics by split, the seconds that measuring took, and the predicted
    label of each test photo, in index order. `made_from` is the sha256 (hex) of everything that its numbers depend on."""

    model_config = ConfigDict(frozen=True)

    chosen: dict[str, int | float]
    train: Metrics
    val: Metrics
    test: Metrics | None = None
    seconds: float
    made_from: str
    test_labels: list[int] | None = None

    @property
    def metrics(self) -> SplitMetrics:
        """The baseline's metrics by split."""
        return SplitMetrics(train=self.train, val=self.val, test=self.test)

    @model_serializer(mode="wrap")
    def _measured(self, plain: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in plain(self).items() if value is not None}


class BaselinesFile(RootModel[dict[str, BaselineResult]]):
    """baselines.json: results by name, as in BASELINES."""


def load_baselines(workdir: Path) -> dict[str, BaselineResult]:
    """The measured baselines by name, in the order of BASELINES; empty if none has been measured.

    Raises HeadhuntError if their file is damaged.
    """
    path = baselines_file(workdir)
    try:
        found = BaselinesFile.model_validate(json.loads(path.read_text(encoding="utf-8"))).root
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        reason = "an entry is incomplete" if isinstance(error, ValidationError) else error
        raise HeadhuntError(
            f"{relative(path)} is damaged ({reason}). Delete it, then run `headhunt train baselines`."
        ) from None
    return {name: found[name] for name in BASELINES if name in found}


def baselines_json(baselines: Mapping[str, BaselineResult]) -> list[dict[str, object]]:
    """The `--json` objects of the baselines."""
    return [
        {
            "name": name,
            "title": BASELINES[name].title,
            **found.model_dump(exclude={"made_from", "test_labels"}),
        }
        for name, found in baselines.items()
    ]


def baseline_test_labels(run: TrainRun, cache: FeatureCache, name: str) -> list[int] | None:
    """A baseline's predicted label of each test photo, in index order; None if it was not evaluated on these photos."""
    found = load_baselines(run.workdir).get(name)
    return found.test_labels if found and found.made_from == _identity(run, cache, name) else None


def measure_baselines(
    run: TrainRun, only: str | None = None, command: str = "train baselines"
) -> dict[str, BaselineResult]:
    """Measures the configured baselines, or only the named one, for this command; returns them by name.

    Baselines already measured are reused, and each new one is written as soon as it is done. Raises UsageError for an unknown
    name, or for the simple CNN if it is not configured; CacheError if there is no feature cache.
    """
    config = run.train.baselines
    if only is not None and only not in BASELINES:
        raise UsageError(f"--only: received {only!r}; allowed: {', '.join(BASELINES)}.")
    names = [name for name in BASELINES if only in (None, name) and BASELINES[name].settings(config) is not None]
    if not names:
        raise UsageError(
            f"--only {only}: this baseline is not configured. Add `--set train.baselines.{only}={{}}`, or add its section to the "
            "configuration file."
        )
    cache = cache_for(run)
    for name in names:
        identity = _identity(run, cache, name)
        measured = load_baselines(run.workdir)
        if name in measured and measured[name].made_from == identity:
            continue
        log.print(f"Baseline: {BASELINES[name].title}")
        started = time.monotonic()
        if run.train.evaluate_test:
            record_test_evaluation(run.workdir, command, BASELINES[name].title, len(cache.labels("test")))
        found = BASELINES[name].compute(run, cache)
        result = BaselineResult(
            chosen=found.chosen,
            **found.metrics.evaluated(),
            seconds=round(time.monotonic() - started, 1),
            made_from=identity,
            test_labels=found.probabilities["test"].argmax(1).tolist() if run.train.evaluate_test else None,
        )
        written = BaselinesFile({**load_baselines(run.workdir), name: result}).model_dump()
        write_text(baselines_file(run.workdir), json.dumps(written, indent=1) + "\n")
    measured = load_baselines(run.workdir)
    return {name: measured[name] for name in names}


def _identity(run: TrainRun, cache: FeatureCache, name: str) -> str:
    """sha256 (hex) of everything that a baseline's numbers depend on."""
    parts = [VERSION, name, cache.key, BASELINES[name].settings(run.train.baselines), run.evaluated_splits]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
