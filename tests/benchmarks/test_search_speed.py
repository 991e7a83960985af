"""A search against KerasTuner's, whole processes, on the same features and the same trials; and what its bookkeeping takes.

`HEADHUNT_BENCH_TRIALS=8 HEADHUNT_BENCH_REPEATS=1` runs a piece of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from features.manifest import FORMAT_VERSION, Manifest, ShardEntry, cache_key, write_manifest
from features.shards import Shard, write_shard

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(6 * 3600)]

ROOT = Path(__file__).parents[2]
TRIALS = int(os.environ.get("HEADHUNT_BENCH_TRIALS", "64"))
REPEATS = int(os.environ.get("HEADHUNT_BENCH_REPEATS", "3"))

OURS = """
import json, sys, time
started = time.perf_counter()
from pathlib import Path
import search.study
from features.cache import FeatureCache
from search.config import SearchRun

cache, workdir, section = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
search.study.cache_for = lambda run: FeatureCache.open(cache)  # drawn features have no photos to compute a key from
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
    timed(search.study._Driver, name)
timed(search.study, "train_trials")

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

KERAS_TUNER = """
import json, sys
from pathlib import Path
import keras, keras_tuner, numpy as np
from features.cache import FeatureCache
from search.heads import feature_moments
from search.trial import TrialConfig

cache, workdir, classes = FeatureCache.open(Path(sys.argv[1])), sys.argv[2], int(sys.argv[4])
configs = [TrialConfig.model_validate_json(line) for line in Path(sys.argv[3]).read_text().splitlines()]
(x, y), (val, val_labels) = (cache.arrays(split, dtype=np.float32) for split in ("train", "val"))
mean, variance = feature_moments(x)

def build(hp):
    config = configs[hp.Choice("number", list(range(len(configs))))]
    l2 = keras.regularizers.L2(config.head.l2)
    layers = [keras.Input(x.shape[1:]), keras.layers.Normalization(mean=mean, variance=variance)]
    for units in config.head.units:
        layers.append(keras.layers.Dense(units, activation="relu", kernel_regularizer=l2))
        layers.append(keras.layers.Dropout(config.head.dropout))
    model = keras.Sequential([*layers, keras.layers.Dense(classes, kernel_regularizer=l2)])
    model.compile(keras.optimizers.Adam(config.schedule.learning_rate),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model

tuner = keras_tuner.RandomSearch(build, "val_accuracy", max_trials=len(configs), directory=workdir, project_name="bench")
tuner.search(x, y, epochs=configs[0].epochs, batch_size=64, validation_data=(val, val_labels), verbose=0)
best = tuner.oracle.get_best_trials(1)[0].score
print(json.dumps({"best": best, "trials": len(tuner.oracle.trials)}))
"""

SPACE = {
    "head": {
        "layers": [0, 1],
        "units": [128, 256, 384, 512],
        "dropout": {"low": 0.1, "high": 0.6},
        "l2": {"low": 1e-6, "high": 1e-4, "log": True},
    },
    "batch_size": 64,
    "schedule": {"kind": "constant", "learning_rate": {"low": 1e-4, "high": 3e-3, "log": True}},
}


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


def process(body: str, *arguments: str | Path, **environment: str) -> tuple[float, dict[str, object]]:
    """Whole-process seconds, and what it printed last, with the processor's seconds: on a busy machine they tell more."""
    started, used = time.perf_counter(), sum(os.times()[2:4])
    done = subprocess.run(
        [sys.executable, "-c", body, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "PYTHONWARNINGS": "ignore", **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = {**json.loads(done.stdout.splitlines()[-1]), "processor": round(sum(os.times()[2:4]) - used, 1)}
    return time.perf_counter() - started, facts


def section(trials: int, **changed: object) -> dict[str, object]:
    workers = {"executor": "local", "count": os.cpu_count(), "cpus": 1}
    return {
        "sampler": "random", "pruner": "none", "trials": trials, "epochs": 10, "generation": 16, "views": {"copies": 0},
        "space": SPACE, "workers": workers, **changed,
    }  # fmt: skip


def configs_of(workdir: Path, file: Path) -> None:
    """The trials of our study, for the peer."""
    import optuna

    study = optuna.load_study(study_name="bench", storage=f"sqlite:///{workdir}/study.db")
    file.write_text("".join(trial.user_attrs["config"] + "\n" for trial in study.trials))


def test_a_search_against_keras_tuner(tmp_path: Path) -> None:
    """64 trials × 10 epochs, batch 64, 6,500 × 2,048 features of 196 classes; 0 or 1 hidden layer of 128 to 512 units."""
    cache = drawn_cache(tmp_path, 6500, 1300, 2048, 196)
    seconds: dict[str, list[float]] = {
        "Headhunt": [],
        "Headhunt again": [],
        "KerasTuner, JAX": [],
        "KerasTuner, TensorFlow": [],
    }
    facts: dict[str, dict[str, object]] = {}
    for repeat in range(REPEATS):
        runs = {}
        folder = tmp_path / f"ours-{repeat}"
        runs["Headhunt"] = process(OURS, cache, folder, json.dumps(section(TRIALS)), KERAS_BACKEND="jax")
        again = tmp_path / f"again-{repeat}"
        again.mkdir()
        (again / ".jax").symlink_to(folder / ".jax")
        runs["Headhunt again"] = process(OURS, cache, again, json.dumps(section(TRIALS)), KERAS_BACKEND="jax")
        configs_of(folder, tmp_path / "configs.jsonl")
        for name, backend in (("KerasTuner, JAX", "jax"), ("KerasTuner, TensorFlow", "tensorflow")):
            arguments = (cache, tmp_path / f"{backend}-{repeat}", tmp_path / "configs.jsonl", "196")
            runs[name] = process(KERAS_TUNER, *arguments, KERAS_BACKEND=backend)
        for name, (taken, found) in runs.items():
            seconds[name].append(taken)
            facts[name] = found
    ours = statistics.median(seconds["Headhunt"])
    print(f"\n{TRIALS} trials × 10 epochs, whole processes, medians of {REPEATS}:")
    for name, values in seconds.items():
        taken = statistics.median(values)
        rates = f"{3600 * TRIALS / taken:,.0f} trials an hour, {taken / ours:.2f} × Headhunt"
        print(f"  {name}: {taken:.1f} s, {rates}\n    {facts[name]}")


def test_what_bookkeeping_takes(tmp_path: Path) -> None:
    """200 trials of tiny heads, 10 epochs each: everything but training, a trial."""
    trials = int(os.environ.get("HEADHUNT_BENCH_TRIALS", "200"))
    cache = drawn_cache(tmp_path, 64, 32, 8, 4)
    for sampler, pruner in (("random", "none"), ("tpe", "hyperband")):
        space = {**SPACE, "head": {**SPACE["head"], "layers": 1, "units": 8}}  # type: ignore[dict-item]
        wanted = section(trials, sampler=sampler, pruner=pruner, space=space, generation=8)
        wanted["workers"] = {"executor": "local"}
        _, found = process(OURS, cache, tmp_path / sampler, json.dumps(wanted), KERAS_BACKEND="jax")
        parts = found["seconds"]
        assert isinstance(parts, dict)
        ours = {name.lstrip("_"): 1e3 * taken / trials for name, taken in parts.items() if name.startswith("_")}
        shown = ", ".join(f"{name} {taken:.1f}" for name, taken in ours.items())
        print(
            f"\n{sampler}, {pruner}, {trials} trials: {sum(ours.values()):.1f} ms a trial ({shown}); training {parts}"
        )
