"""`train export`: a promotion as a ModelBundle: the network, the configuration that made it, labels, a model card."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.atomic import atomic_path, make_folder, write_text
from features.cache import FeatureCache, cache_for
from features.command import relative
from features.dataset import load_index
from features.engine import start_keras
from features.errors import HeadhuntError, UsageError
from features.template import commented_yaml
from search.leaderboard import Leader, leaders
from search.space import fixed_space
from train.config import FinetuneConfig, TrainRun
from train.evaluate import TOP, predict
from train.model_card import model_card
from train.photos import Photos
from train.promote import check_cache, load_metrics, promoted, promotion_folder

TOLERANCE = 1e-4
"""Largest difference of a probability between the exported network, loaded again, and the table of predictions."""


def export(run: TrainRun, trial: int | None, formats: Sequence[str]) -> dict[str, Any]:
    """Writes `exports/<number>/` for a promoted trial (default: the best); returns the `--json` object of `train export`.

    labels.txt and model_card.md are always written. Raises UsageError for an unknown format or a trial that is not promoted,
    HeadhuntError when an export does not predict what the promotion predicted.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UsageError(f"--format: received {unknown[0]!r}; allowed: {', '.join(FORMATS)}.")
    number = _choose(run, trial)
    metrics = load_metrics(run, number)
    cache = cache_for(run)
    leader = next((leader for leader in leaders(run) if leader.number == number), None)
    if leader is None:
        raise UsageError(f"trial {number} is not in the study {run.name!r}; its promotion belongs to another study.")
    check_cache(run, leader)
    folder = make_folder(run.workdir / "exports" / str(number))
    tuning = FinetuneConfig.model_validate(metrics["finetune"])
    run = run.model_copy(update={"train": run.train.model_copy(update={"finetune": tuning})})
    written = {name: FORMATS[name](run, leader, cache, folder) for name in formats}
    write_text(folder / "labels.txt", "".join(f"{name}\n" for name in cache.class_names))
    write_text(folder / "model_card.md", model_card(run, leader, cache, metrics))
    return {"trial": number, "folder": relative(folder), "formats": written}


def _choose(run: TrainRun, trial: int | None) -> int:
    if trial is not None:
        load_metrics(run, trial)
        return trial
    finished = promoted(run)
    if not finished:
        raise UsageError(f"nothing is promoted in {run.workdir}. Run `headhunt train promote`.")
    return finished[0]


def _export_keras(run: TrainRun, leader: Leader, cache: FeatureCache, folder: Path) -> dict[str, Any]:
    """Copies the promoted network, loads it with plain Keras and compares it with the table of predictions."""
    source = promotion_folder(run, leader.number) / "model.keras"
    target = folder / "model.keras"
    if not source.exists():
        raise HeadhuntError(f"{source} is missing. Delete {source.parent} and run `headhunt train promote` again.")
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    difference = _difference(run, target, source.with_name("predictions.csv"))
    if difference > TOLERANCE:
        raise HeadhuntError(
            f"{target} predicts otherwise than the promotion did: probabilities differ by {difference:.2e}."
        )
    return {"path": relative(target), "max_abs_difference": difference}


def _difference(run: TrainRun, model_file: Path, predictions: Path) -> float:
    """Largest difference of the listed probabilities, over validation photos."""
    start_keras("jax" if run.features.workers.gpus else "tensorflow")
    import keras

    model = keras.saving.load_model(model_file, compile=False, safe_mode=True)
    photos = Photos(run, load_index(run), "val")
    table = pd.read_csv(predictions).query("split == 'val'")
    probabilities = predict(model, photos, run.train.finetune.batch_size)
    columns = range(1, min(TOP, probabilities.shape[1]) + 1)
    order = table[[f"predicted_{rank}" for rank in columns]].to_numpy()
    listed = table[[f"probability_{rank}" for rank in columns]].to_numpy()
    return float(np.abs(np.take_along_axis(probabilities, order, axis=1) - listed).max())


def _export_config(run: TrainRun, leader: Leader, cache: FeatureCache, folder: Path) -> dict[str, Any]:
    """The run's configuration with the search space narrowed to the winner: `headhunt run -c` trains it again."""
    name = f"{run.name}-trial-{leader.number}"
    search = run.search.model_copy(
        update={
            "space": fixed_space(leader.config),
            "views": leader.config.views,
            "trials": 1,
            "pruner": "none",
            "sampler": "random",
        }
    )
    winner = run.model_copy(
        update={
            "name": name,
            "workdir": run.workdir.with_name(f"{run.workdir.name}-trial-{leader.number}"),
            "search": search,
            "train": run.train.model_copy(update={"top": 1}),
        }
    )
    head = (
        f"# Trial {leader.number} of the study {run.name!r} ({run.search.objective} {leader.value:.4f} on cached features).\n"
        f"# Run it again from the folder that its paths start from:  headhunt run -c {relative(folder / 'headhunt.yaml')}\n"
    )
    write_text(folder / "headhunt.yaml", head + commented_yaml(winner))
    return {"path": relative(folder / "headhunt.yaml"), "max_abs_difference": None}


FORMATS: dict[str, Callable[[TrainRun, Leader, FeatureCache, Path], dict[str, Any]]] = {
    "keras": _export_keras,
    "config": _export_config,
}
"""Every export by its name in `--format`."""
