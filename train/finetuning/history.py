"""The epochs of a fine-tuning run, kept in the checkpoint and written to history.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from features.runtime.atomic import atomic_path
from features.runtime.errors import HeadhuntError
from features.runtime.log import relative
from features.runtime.own_tables import read_whole_table
from search.metric import Metric
from search.ranking import Score

HISTORY = "history.csv"


class Epoch(BaseModel):
    """A row of history.csv. Epoch 0, of phase 0, is the network before fine-tuning: its training loss, accuracy and learning rate
    are NaN. `learning_rate` is that of the epoch's last step, `seconds` include validation."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    epoch: int
    phase: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    val_top5_accuracy: float = math.nan
    learning_rate: float
    seconds: float = 0.0

    def score(self, objective: Metric) -> Score:
        """The network's score on the validation photos after this epoch."""
        return Score.of(objective, getattr(self, objective), self.val_loss)


def write_history(folder: Path, epochs: Sequence[Epoch]) -> None:
    """Writes history.csv atomically."""
    table = pd.DataFrame([epoch.model_dump() for epoch in epochs])
    with atomic_path(folder / HISTORY) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def read_history(folder: Path) -> list[Epoch]:
    """The epochs of history.csv, at least one; HeadhuntError if the file is missing or damaged."""
    path = folder / HISTORY
    try:
        epochs = TypeAdapter(list[Epoch]).validate_python(read_whole_table(path).to_dict("records"))
        reason = "" if epochs else MISSING
    except ValidationError:
        reason = MISSING
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
    if reason:
        raise unreadable(folder, reason)
    return epochs


MISSING = "columns or values are missing"


def unreadable(folder: Path, reason: str = MISSING) -> HeadhuntError:
    """The error for an unusable history.csv."""
    return HeadhuntError(f"{relative(folder / HISTORY)} cannot be read ({reason}).")
