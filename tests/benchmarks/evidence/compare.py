"""Whole searches with the default space and with another one on the same caches: accuracy, seconds and processor seconds."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from features.run_file import load
from search.config import SearchRun
from search.leaderboard import leaders
from tests.benchmarks.evidence.trials import run_study


def compare(
    out: Path, name: str, label: str, space: dict[str, Any], seed: int, trials: int, epochs: int | None = None
) -> dict[str, Any]:
    """A search by the defaults but for its space (`{}`: the default one) and local threads; what it found and took.

    `drawn` are the accuracies of the best trial that a sampler drew. A search that was run before is read.
    """
    workdir = out / name / f"{label}_{trials}_{seed}{f'_{epochs}_epochs' if epochs else ''}"
    took = workdir / "took.json"
    if not took.exists():
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        section = {
            "trials": trials,
            "keep": trials,
            "seed": seed,
            "space": space,
            **({"epochs": epochs} if epochs else {}),
        }
        run_study(out, name, workdir.name, section)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        took.write_text(json.dumps({"seconds": time.monotonic() - started, "cpu_seconds": cpu}))
    run = load(SearchRun, workdir / "headhunt.yaml")
    found = leaders(run)
    best, drawn = found[0], next(leader for leader in found if leader.first is None)
    return {
        "set": name, "space": label, "epochs": run.search.epochs, "seed": seed, "best": best.first or "drawn",
        "val": best.value, "test": accuracy_on_test(run, best),
        "drawn_val": drawn.value, "drawn_test": accuracy_on_test(run, drawn),
        **json.loads(took.read_text()),
    }  # fmt: skip


def accuracy_on_test(run: SearchRun, leader: Any) -> float:
    """The accuracy of a trial's best epoch on the clean test photos."""
    from features.audit.moments import feature_moments
    from features.cache.feature_cache import cache_for
    from search.heads import build_head, set_head_weights
    from search.records import load_weights

    cache, parts = cache_for(run), leader.config.features.parts
    moments = feature_moments(cache.arrays("train", parts=parts)[0], cache.part_widths(parts))
    head = build_head(leader.config.head, cache.shape_of(parts), len(cache.class_names), moments)
    set_head_weights(head, load_weights(run.workdir, leader.number))
    features, labels = cache.arrays("test", dtype=np.float32, parts=parts)
    return float((np.asarray(head(features, training=False)).argmax(1) == labels).mean())
