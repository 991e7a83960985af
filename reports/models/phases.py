"""How the promoted models were fine-tuned, phase by phase."""

from __future__ import annotations

import pandas as pd

from reports.models.learning import MEASURES, LearningCurve, draw
from reports.section import Block
from reports.style import share
from search.ranking import best_place
from train.config import FinetuneConfig, PhaseConfig, TrainRun
from train.finetuning.journal import HISTORY
from train.promotion.promote import load_metrics, promoted
from train.promotion.worker import promotion_folder


def collect(run: TrainRun) -> list[LearningCurve]:
    """The curve of each finished promotion, the best first; epoch 0 is the frozen network."""
    return [stitch(f"trial {number}", pd.read_csv(promotion_folder(run, number) / HISTORY)) for number in promoted(run)]


def stitch(name: str, history: pd.DataFrame) -> LearningCurve:
    """A curve from a history.csv. A phase begins with the best weights so far: the epochs after those are thrown away."""
    table = history.assign(part=history["phase"].clip(lower=1), thrown_away=False)
    for start in table.groupby("part")["epoch"].min().iloc[1:]:
        before = table["epoch"] < start
        table.loc[before & (table["epoch"] > _resumed_from(history, int(start))), "thrown_away"] = True
    return LearningCurve(name, table[["epoch", "part", "thrown_away", *MEASURES]])


def _resumed_from(history: pd.DataFrame, start: int) -> int:
    """The epoch whose weights a phase that starts with epoch `start` begins with: the best before it."""
    earlier = history[history["epoch"] < start]
    return int(earlier["epoch"].iloc[best_place("val_accuracy", earlier)])


def blocks(run: TrainRun) -> list[Block]:
    """A figure for each promotion, all on the same scales."""
    curves = collect(run)
    made = []
    for number, curve in zip(promoted(run), curves, strict=True):
        plan = FinetuneConfig.model_validate(load_metrics(run, number)["finetune"]).plan
        figures = {f"finetuning-{number}": draw(curve, "phase", curves)}
        made.append(Block(f"How {curve.name} was fine-tuned", describe(curve, plan), figures))
    return made


def describe(curve: LearningCurve, plan: tuple[PhaseConfig, ...]) -> str:
    """What was trained and for how long, where each phase began, and what came of it, in sentences."""
    table = curve.table
    said = []
    for number, phase in enumerate(plan, 1):
        ran = table[(table["part"] == number) & (table["epoch"] > 0)]
        if ran.empty:
            continue
        epochs = f"{len(ran)} epoch{'s' if len(ran) > 1 else ''}"
        if len(plan) == 1:
            said.append(f"It trained {phase.title}, {epochs}.")
            continue
        first = int(ran["epoch"].min())
        begun = f" began with the weights of epoch {_resumed_from(table, first)} and" if number > 1 else ""
        said.append(f"Phase {number}{begun} trained {phase.title}, {epochs}.")
    best, frozen = curve.best, table["val_accuracy"].iloc[0]
    if best["epoch"] == 0:
        said.append(f"No epoch was better than the frozen network, {share(frozen)} on the validation photos.")
    else:
        said.append(
            f"The best was epoch {best['epoch']:.0f}: {share(best['val_accuracy'])} of the validation photos, against "
            f"{share(frozen)} of the frozen network at epoch 0."
        )
    if table["thrown_away"].any():
        said.append("Epochs after the one that a phase begins from are faint: their weights were thrown away.")
    return " ".join(said)
