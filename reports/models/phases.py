"""The fine-tuning of the promoted models, phase by phase."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from features.runtime.log import counted
from reports.models.learning import MEASURES, LearningCurve, draw
from reports.section import Block
from reports.style import share
from search.metric import Metric
from search.ranking import best_place
from train.exports.model_card import trained
from train.finetuning.history import unreadable
from train.promotion.artifact import Promotion


def collect(promotion: Promotion, objective: Metric) -> LearningCurve:
    """The curve of a finished promotion, whose best epoch was chosen by `objective`; epoch 0 is the frozen network. Raises
    HeadhuntError if its history is damaged."""
    history = pd.DataFrame([epoch.model_dump() for epoch in promotion.history]).astype(np.float64)
    if history[["val_loss", "val_accuracy", objective]].isna().any(axis=None):
        raise unreadable(promotion.folder)
    return stitch(promotion.title, history, objective)


def stitch(name: str, history: pd.DataFrame, objective: Metric = "val_accuracy") -> LearningCurve:
    """A curve from a history.csv. Each phase starts from the best weights so far by `objective`; the epochs after these are
    discarded."""
    table = history.assign(part=history["phase"].clip(lower=1), thrown_away=False)
    for start in table.groupby("part")["epoch"].min().iloc[1:]:
        before = table["epoch"] < start
        table.loc[before & (table["epoch"] > _resumed_from(history, int(start), objective)), "thrown_away"] = True
    columns = dict.fromkeys(["epoch", "part", "thrown_away", *MEASURES, objective])
    return LearningCurve(name, table[list(columns)], objective)


def _resumed_from(history: pd.DataFrame, start: int, objective: Metric) -> int:
    """The epoch whose weights the phase starting at epoch `start` begins with: the best one before it."""
    earlier = history[history["epoch"] < start]
    return int(earlier["epoch"].iloc[best_place(objective, earlier)])


def blocks(promotions: Sequence[Promotion], curves: Sequence[LearningCurve]) -> list[Block]:
    """A figure for each promotion, on scales of its own: one with a very high loss would flatten the others."""
    return [
        Block(
            f"What fine-tuning tried: {curve.name}" if each.is_frozen else f"How {curve.name} was fine-tuned",
            f"{describe(curve, trained(each))} {each.rounding}".rstrip(),
            {f"finetuning-{each.folder.name}": draw(curve, "phase")},
        )
        for each, curve in zip(promotions, curves, strict=True)
    ]


def describe(curve: LearningCurve, layers: Sequence[str]) -> str:
    """Sentences on what was trained (`layers`: one text per phase) and for how long, where each phase started, and the result."""
    table = curve.table
    said = []
    for number, phase in enumerate(layers, 1):
        ran = table[(table["part"] == number) & (table["epoch"] > 0)]
        if ran.empty:
            continue
        epochs = counted(len(ran), "epoch")
        if len(layers) == 1:
            said.append(f"It trained {phase}, {epochs}.")
            continue
        first = int(ran["epoch"].min())
        begun = (
            f" started from the weights of epoch {_resumed_from(table, first, curve.objective)} and"
            if number > 1
            else ""
        )
        said.append(f"Phase {number}{begun} trained {phase}, {epochs}.")
    best, frozen = curve.best, table["val_accuracy"].iloc[0]
    if best["epoch"] == 0:
        said.append(f"No epoch was better than the frozen network, {share(frozen)} on the validation photos.")
    else:
        said.append(
            f"The best was epoch {best['epoch']:.0f}: {share(best['val_accuracy'])} on the validation photos, against "
            f"{share(frozen)} for the frozen network (epoch 0)."
        )
    if table["thrown_away"].any():
        said.append("Faint epochs were discarded: the next phase started from an earlier one.")
    return " ".join(said)
