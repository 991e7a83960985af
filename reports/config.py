"""The `reports` section of the configuration, and the model of the whole file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, field_validator

from features.config import Section
from train.config import TrainRun


class HistoryFile(Section):
    """One part of an earlier run: a Keras training history as CSV, and which epoch of the part before it goes on from."""

    path: Path
    resumed_from: Literal["best", "best_accuracy", "last"] | PositiveInt = Field(
        "best",
        description="best: the lowest validation loss, what Keras's ModelCheckpoint keeps by default; best_accuracy: the "
        "highest validation accuracy; last; or the number of an epoch",
    )


def _history_file(value: Any) -> Any:
    if isinstance(value, dict):
        return HistoryFile.model_validate(value)
    if not isinstance(value, str | HistoryFile):
        raise ValueError("it takes the path of a CSV file, or {path, resumed_from}")
    return value


class HistoryConfig(Section):
    """An earlier run, trained by other means: its histories in their order."""

    name: str = Field(min_length=1, description="as the page calls it")
    files: tuple[Annotated[str | HistoryFile, BeforeValidator(_history_file)], ...] = Field(
        min_length=1, description="each the path of a CSV file, or {path, resumed_from}"
    )

    @property
    def parts(self) -> list[HistoryFile]:
        """The files in the long form."""
        return [file if isinstance(file, HistoryFile) else HistoryFile(path=Path(file)) for file in self.files]


class ReportsConfig(Section):
    """What the page shows."""

    leaders: int = Field(5, ge=1, le=20, description="trials whose curves are drawn")
    confusions: int = Field(15, ge=1, le=100, description="pairs of classes listed as most often confused")
    mistakes: int = Field(12, ge=1, le=60, description="test photos shown that the best model names wrongly")
    histories: tuple[HistoryConfig, ...] = Field(
        (),
        description="earlier runs to show: {name, files: [a.csv, b.csv]}, Keras training histories, parts in their order",
    )

    @field_validator("histories")
    @classmethod
    def _told_apart(cls, value: tuple[HistoryConfig, ...]) -> tuple[HistoryConfig, ...]:
        name, times = next(iter(Counter(history.name for history in value).most_common(1)), ("", 0))
        if times > 1:
            raise ValueError(f"the name {name!r} is given {times} times. Give each run a name of its own")
        return value


class Run(TrainRun):
    """The whole of `headhunt.yaml`."""

    reports: ReportsConfig = ReportsConfig()
