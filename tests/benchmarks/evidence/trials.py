"""Random trials of a wide space on a data set, through the project's own command line; every epoch's curve is kept.

A study is the folder `<data set>/<study>`: it shares index and cache of the data set with the others, and ends as the table
`trials.csv` (a row for each trial: its settings) and `curves.npz` (its values, epoch by epoch).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from search.population.structure import structure_of
from search.records import load_curves, trial_folder
from search.space import SearchSpace
from search.trial import TrialConfig
from tests.benchmarks.evidence.datasets import DATA_SETS, configuration

WIDE: dict[str, Any] = {
    "head": {
        "layers": [0, 1, 2],
        "units_1": [256, 512],
        "units_2": 256,
        "activation": "relu",
        "dropout": {"low": 0.05, "high": 0.7},
        "l2": {"low": 1e-6, "high": 1e-2, "log": True},
        "batch_norm": [False, True],
        "label_smoothing": [0.0, 0.1, 0.2],
        "standardize": True,
    },
    "optimizer": {"kind": "adamw", "weight_decay": {"low": 1e-4, "high": 1.0, "log": True}},
    "batch_size": [32, 64, 128],
    "schedule": {
        "kind": ["constant", "step_decay", "triangular2", "cosine_restarts", "warmup_cosine", "one_cycle"],
        "learning_rate": {"low": 1e-4, "high": 3e-2, "log": True},
    },
}
"""Every depth, regulariser and schedule, with rates from too low to too high; few shapes, since each is a program to compile.
The least weight decay is as good as none: AdamW is Adam there."""

BEFORE: dict[str, Any] = {
    "head": {
        "layers": [0, 1, 2],
        "units": [128, 256, 512],
        "activation": "relu",
        "dropout": {"low": 0.0, "high": 0.6, "step": 0.1},
        "l2": {"low": 1e-6, "high": 1e-2, "log": True},
        "batch_norm": [False, True],
        "label_smoothing": [0.0, 0.1],
        "standardize": True,
    },
    "optimizer": {"kind": "adam"},
    "batch_size": [32, 64],
    "schedule": {
        "kind": ["constant", "step_decay", "triangular2", "cosine_restarts", "warmup_cosine"],
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    },
}
"""The default space before this evidence (02ad395), to compare with."""

FEW_PROGRAMS: dict[str, Any] = {**WIDE, "head": {**WIDE["head"], "units_1": 256}, "batch_size": 64}
"""The same with one width and one batch size: five programs to compile, for the sake of short studies."""

NESTEROV: dict[str, Any] = {
    **WIDE,
    "head": {**WIDE["head"], "layers": [0, 1], "units_1": 256, "standardize": [False, True]},
    "optimizer": {"kind": "sgd", "momentum": 0.9},
    "batch_size": 64,
    "schedule": {**WIDE["schedule"], "learning_rate": {"low": 1e-3, "high": 1.0, "log": True}},
}
"""The same under stochastic gradient descent, which needs other rates; and features that are not standardised."""

STEP_DECAY: dict[str, Any] = {
    "schedule": {
        **SearchSpace().schedule,
        "kind": ["step_decay" if kind == "triangular2" else kind for kind in SearchSpace().schedule["kind"]],
    }
}
"""The default space with decay by steps in place of halved triangles."""

SGD: dict[str, Any] = {"optimizer": {"kind": "sgd", "momentum": 0.9}}
"""The default space with stochastic gradient descent, and with rates for Adam."""

SPACES: dict[str, dict[str, Any]] = {
    "default": {},
    "before": BEFORE,
    "wide": WIDE,
    "nesterov": NESTEROV,
    "step_decay": STEP_DECAY,
    "not_standardised": {"head": {**SearchSpace().head, "standardize": False}},
    "sgd": SGD,
    "sgd_with_adams_rates": {**SGD, "schedule": SearchSpace().schedule},
    "few_programs": FEW_PROGRAMS,
}


def run_trials(out: Path, name: str, study: str, space: dict[str, Any], trials: int, epochs: int) -> Path:
    """Runs a study of random trials, or goes on with it; gives its folder."""
    section = {
        "sampler": "random", "pruner": "none", "first": [], "trials": trials, "epochs": epochs, "generation": 20,
        "seed": list(DATA_SETS).index(name), "storage": "journal", "keep": 1, "space": space,
    }  # fmt: skip
    workdir = run_study(out, name, study, section)
    write_tables(workdir)
    return workdir


def run_study(out: Path, name: str, study: str, section: dict[str, Any]) -> Path:
    """Runs a search on a data set's cache, which is made where it is missing; gives the study's folder."""
    raw = configuration(out, name)
    config = write_study(out / name / study, raw | {"search": section}, out / name / "run")
    make_cache(config)
    headhunt("search", "run", "-c", config)
    return config.parent


def write_study(workdir: Path, raw: dict[str, Any], shared: Path) -> Path:
    """Writes a study's `headhunt.yaml` into its folder, whose index and caches lie in `shared`; gives that file."""
    workdir.mkdir(parents=True, exist_ok=True)
    for part in ("dataset", "cache"):
        (shared / part).mkdir(parents=True, exist_ok=True)
        if not (workdir / part).exists():
            (workdir / part).symlink_to((shared / part).resolve())
    workers = {"executor": "local", "count": os.cpu_count(), "cpus": 1}
    raw = {**raw, "workdir": str(workdir.resolve()), "search": {"workers": workers, **raw["search"]}}
    config = workdir / "headhunt.yaml"
    config.write_text(yaml.safe_dump(raw, sort_keys=False))
    return config


def make_cache(config: Path) -> None:
    """Index and cache of a study, where they are missing."""
    if not (config.parent / "dataset" / "index.csv").exists():
        headhunt("features", "prepare", "-c", config)
    headhunt("features", "cache", "-c", config)


def write_tables(workdir: Path) -> None:
    """`trials.csv` and `curves.npz` of a study, from its trials' folders; `state` is COMPLETE after the last epoch."""
    rows, curves, columns = [], [], ["val_accuracy", "val_loss", "learning_rate"]
    numbers = sorted(int(folder.name) for folder in (workdir / "trials").iterdir() if (folder / "curves.csv").exists())
    for number in numbers:
        config = TrialConfig.model_validate(yaml.safe_load((trial_folder(workdir, number) / "trial.yaml").read_text()))
        found = load_curves(workdir, number)
        values = np.full((len(columns), config.epochs), np.nan, np.float32)
        values[:, : len(found)] = found[columns].to_numpy().T
        curves.append(values)
        head, schedule, program = config.head.model_dump(), config.schedule, str(structure_of(config))
        units = head.pop("units")
        rows.append(
            {
                "number": number, "state": "COMPLETE" if len(found) == config.epochs else "ENDED",
                "value": found["val_accuracy"].max(), "layers": len(units), "units": max(units, default=0),
                "optimizer": config.optimizer.kind, "weight_decay": config.optimizer.decay,
                "batch_size": config.batch_size, "schedule": schedule.kind, "learning_rate": schedule.learning_rate, **head,
                **{f"views_{key}": value for key, value in config.views.model_dump().items()}, "epochs": config.epochs,
                "program": hashlib.sha256(program.encode()).hexdigest()[:8],
            }
        )  # fmt: skip
    pd.DataFrame(rows).to_csv(workdir / "trials.csv", index=False)
    np.savez_compressed(workdir / "curves.npz", **dict(zip(columns, np.stack(curves, 1), strict=True)))


def headhunt(*arguments: str | Path) -> None:
    """Runs the command line; what it says goes to standard error."""
    command = [str(Path(sys.executable).with_name("headhunt")), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)


def names(wanted: str | None) -> list[str]:
    """Data sets by comma-separated names; all where there are none."""
    chosen = wanted.split(",") if wanted else list(DATA_SETS)
    unknown = [name for name in chosen if name not in DATA_SETS]
    if unknown:
        raise SystemExit(f"--sets: received {', '.join(unknown)}; allowed: {', '.join(DATA_SETS)}")
    return chosen
