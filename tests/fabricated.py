"""Promotions and confirmations without training, from made-up numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from features.dataset.index import SPLITS, load_index
from reports.config import Run
from search.confirm.ranking import Confirmation, digests, rank, write_confirmation
from search.confirm.seed_runs import SeedRun
from search.leaderboard import Leader, leaders, load_study
from train.config import FinetuneConfig, PhaseConfig
from train.evaluate import SplitMetrics, measure, prediction_table
from train.photos import Photos
from train.promotion.artifact import Parity, Promotion, write_promotion

PHASES = (PhaseConfig(unfreeze="head", epochs=3), PhaseConfig(unfreeze=5, epochs=2))


def history_table(phases: list[int], val_accuracy: list[float]) -> pd.DataFrame:
    """A history.csv with these phases and accuracies; everything else in it follows from the accuracies."""
    accuracy = np.asarray(val_accuracy)
    trained = np.where(np.asarray(phases) > 0, 1.0, np.nan)
    return pd.DataFrame(
        {
            "epoch": range(len(phases)),
            "phase": phases,
            "loss": trained * (2 - accuracy),
            "accuracy": trained * accuracy**2,
            "val_loss": 1 - accuracy,
            "val_accuracy": accuracy,
            "val_top5_accuracy": 1.0,
            "learning_rate": trained * 1e-4,
            "seconds": 1.0,
        }
    )


def fabricate_promotion(
    run: Run,
    place: int = 0,
    tuned: Mapping[str, float] | None = None,
    recipe: str = "0a1b2c3d",
    best_epoch: int = 5,
    unfrozen: Sequence[str] = ("conv",),
) -> int:
    """Writes a promotion of the trial at this place in the ranking and returns its number; `tuned` changes the fine-tuned
    network's metrics on validation photos. Photos of every class are predicted as the next class two times out of three."""
    number, index = leaders(run)[place].number, load_index(run)
    classes, tables, measured = len(index.class_names), [], {}
    for split in SPLITS:
        photos = Photos(run, index, split)
        taken_for = (photos.labels + (np.arange(len(photos)) % 3 > 0)) % classes
        probabilities = np.full((len(photos), classes), 0.1, np.float32)
        probabilities[np.arange(len(photos)), taken_for] = 1.1 - 0.1 * classes
        measured[split] = measure(probabilities, photos.labels)
        tables.append((photos, probabilities))
    folder = run.workdir / "promotions" / f"{number}-{recipe}"
    folder.mkdir(parents=True)
    prediction_table(tables, index.class_names).to_csv(folder / "predictions.csv", index=False)
    history_table([0, 1, 1, 1, 2, 2], [0.5, 0.6, 0.8, 0.7, 0.75, 0.9]).to_csv(folder / "history.csv", index=False)
    promotion = Promotion(
        folder=folder,
        trial=number,
        frozen=SplitMetrics(**measured),
        tuned=SplitMetrics(**{**measured, "val": measured["val"].model_copy(update=tuned)}),
        parity=Parity(images=8, max_abs_difference=1e-6, tolerance=5e-3),
        unfrozen=list(unfrozen),
        finetune=FinetuneConfig(phases=PHASES),
        epochs=5,
        best_epoch=best_epoch,
        seconds=1.0,
        versions={"headhunt": "0"},
        made_from=f"{number}-{recipe}",
    )
    write_promotion(promotion)
    return number


def lies(leader: Leader) -> list[float]:
    """Values of a leader that reverse the search's ranking."""
    return [0.01 * leader.number, 0.01 * leader.number + 0.005]


def seed_run(number: int, seed: int, value: float | None, val_loss: float = 1.0, key: str | None = None) -> SeedRun:
    """A fake training: of one epoch, or failed if it has no value."""
    failure = None if value is not None else "the loss is not finite after epoch 3"
    curves = () if value is None else ((1, 1.0, 0.5, val_loss, value, 1.0, 0.01),)
    return SeedRun(
        key=key or f"{number}-{seed}", trial=number, seed=seed, value=value, best_epoch=len(curves), failure=failure,
        curves=curves,
    )  # fmt: skip


def fabricate_confirmation(run: Run, top: int, failed: tuple[int, ...] = ()) -> Confirmation:
    """A fake confirmation of the leaders: each has values by its number, or failed with the second seed."""
    best = leaders(run, top)
    values = [[0.5, None] if each.number in failed else lies(each) for each in best]
    found = [
        [seed_run(each.number, seed, value) for seed, value in zip((1, 2), own, strict=True)]
        for each, own in zip(best, values, strict=True)
    ]
    made = Confirmation(
        study=run.name,
        objective="val_accuracy",
        identity=load_study(run).user_attrs["identity"],
        comparison="tukey and paired t",
        leaders=digests(best),
        confirmed=rank("val_accuracy", best, (1, 2), found),
    )
    write_confirmation(run.workdir, made)
    return made
