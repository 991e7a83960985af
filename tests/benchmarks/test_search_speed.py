"""A search against KerasTuner's, whole processes, on the same features and the same trials; and what its bookkeeping takes.

`HEADHUNT_BENCH_TRIALS=8 HEADHUNT_BENCH_REPEATS=1` runs a piece of it.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.searches import OURS, drawn_cache, process

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(6 * 3600)]

TRIALS = int(os.environ.get("HEADHUNT_BENCH_TRIALS", "64"))
REPEATS = int(os.environ.get("HEADHUNT_BENCH_REPEATS", "3"))

KERAS_TUNER = """
import json, sys
from pathlib import Path
import keras, keras_tuner, numpy as np
from features.cache.feature_cache import FeatureCache
from features.audit.moments import feature_moments
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

SPACE: dict[str, Any] = {
    "head": {
        "layers": [0, 1],
        "units": [128, 256, 384, 512],
        "dropout": {"low": 0.1, "high": 0.6},
        "l2": {"low": 1e-6, "high": 1e-4, "log": True},
    },
    "batch_size": 64,
    "schedule": {"kind": "constant", "learning_rate": {"low": 1e-4, "high": 3e-3, "log": True}},
}


def section(trials: int, **changed: Any) -> dict[str, Any]:
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
    facts: dict[str, dict[str, Any]] = {}
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
            done = found["trials"]["complete"] if isinstance(found["trials"], dict) else found["trials"]
            seconds[name].append(taken / done)
            facts[name] = found
    ours = statistics.median(seconds["Headhunt"])
    print(f"\n{TRIALS} trials × 10 epochs, whole processes, medians of {REPEATS}:")
    for name, values in seconds.items():
        taken = statistics.median(values)
        print(f"  {name}: {3600 / taken:,.0f} trials an hour, {taken:.2f} s a trial, {taken / ours:.2f} × Headhunt's")
        print(f"    {facts[name]}")
    parts = facts["Headhunt"]["seconds"]
    share = parts["backend_compile_duration"] / parts["train_trials"]
    print(f"  compilation: {share:.1%} of the workers' time in a search that finds no compiled program")


@pytest.mark.parametrize(("sampler", "pruner"), [("random", "none"), ("tpe", "hyperband")])
def test_what_bookkeeping_takes(tmp_path: Path, sampler: str, pruner: str) -> None:
    """1,000 trials of the same heads on the same features: the share of the wall time that is not training."""
    trials = int(os.environ.get("HEADHUNT_BENCH_TRIALS", "1000"))
    cache = drawn_cache(tmp_path, 6500, 1300, 2048, 196)
    wanted = section(trials, sampler=sampler, pruner=pruner, generation=8)
    _, found = process(OURS, cache, tmp_path / sampler, json.dumps(wanted), KERAS_BACKEND="jax")
    parts = {name.lstrip("_"): taken for name, taken in found["seconds"].items() if name.startswith("_")}
    shown = ", ".join(f"{name} {1e3 * taken / trials:.1f}" for name, taken in parts.items())
    share = sum(parts.values()) / found["search"]
    print(
        f"\n{sampler}, {pruner}, {trials} trials in {found['search']:.0f} s: bookkeeping {share:.1%} of the wall time, "
        f"ms a trial: {shown}"
    )
