"""What the searches' benchmarks share: features drawn as a cache on disk, processes that are timed, and our search in one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from features.cache.manifest import FORMAT_VERSION, Manifest, ShardEntry, cache_key, write_manifest
from features.cache.shards import Shard, write_shard

ROOT = Path(__file__).parents[2]

OURS = """
import json, sys, time
started = time.perf_counter()
from pathlib import Path
import search.driver.driver, search.population.heads_objective, search.population.sources, search.study
from features.cache.feature_cache import FeatureCache
from search.config import SearchRun

cache, workdir, section = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
search.population.sources.cache_for = lambda run, policy=None: FeatureCache.open(cache)  # drawn: no photos, no key
seconds = {}

def timed(owner, name):
    function = getattr(owner, name)
    def call(*arguments):
        began = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
    setattr(owner, name, call)

for name in ("_next_generation", "_report", "_judge", "_record", "_tell"):
    timed(search.driver.driver.Driver, name)
timed(search.population.heads_objective, "train_trials")

import jax
def heard(event, duration, **_):
    name = event.rpartition("/")[2]
    seconds[name] = seconds.get(name, 0.0) + duration
jax.monitoring.register_event_duration_secs_listener(heard)
result = search.study.run_search(SearchRun.model_validate(
    {"name": "bench", "workdir": workdir, "dataset": {"kind": "toy_cars"}, "features": {"copies": 0}, "search": section}))
print(json.dumps({"best": result["best"], "trials": result["trials"], "search": result["seconds"], "seconds": seconds,
                  "whole": time.perf_counter() - started}))
"""


def drawn_cache(folder: Path, train: int, val: int, width: int, classes: int) -> Path:
    """Features of `classes` blurred points, as a cache on disk."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(classes, width)).astype(np.float32)
    parts = {"backbone": "drawn"}
    folder = folder / cache_key(parts)[:16]
    folder.mkdir(parents=True)
    entries = []
    for split, images in (("train", train), ("val", val)):
        labels = random.integers(0, classes, images)
        features = (0.12 * centres[labels] + random.normal(size=(images, width))).astype(np.float16)
        name = f"{split}-c000-00000-of-00001.tfrecord"
        write_shard(folder / name, Shard(features, labels, np.arange(images)))
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        entries.append(ShardEntry(file=name, split=split, copy_number=0, records=images, sha256=digest))  # type: ignore[arg-type]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        key=cache_key(parts),
        key_parts=parts,
        feature_shape=(width,),
        dtype="float16",
        class_names=tuple(f"class {n}" for n in range(classes)),
        policy="none",
        copies=0,
        splits={"train": train, "val": val, "test": 0},
        shards=tuple(entries),
    )
    write_manifest(folder, manifest)
    return folder


def process(body: str, *arguments: str | Path, **environment: str) -> tuple[float, dict[str, Any]]:
    """Whole-process seconds, and what it printed last, with the processor's seconds: on a busy machine they tell more."""
    started, used = time.perf_counter(), sum(os.times()[2:4])
    done = subprocess.run(
        [sys.executable, "-c", body, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore", **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = {**json.loads(done.stdout.splitlines()[-1]), "processor": round(sum(os.times()[2:4]) - used, 1)}
    return time.perf_counter() - started, facts
