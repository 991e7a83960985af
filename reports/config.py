"""The `reports` section of the configuration, and the model of the whole file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, field_validator

from features.augmentation.augment import POLICIES
from features.runtime.section import Section, UserPath
from train.config import FinetuneConfig, TrainRun


class FidelityConfig(Section):
    """The experiment that measures how well the cached search predicts the full run."""

    configurations: int = Field(40, ge=4, description="drawn from the search space, spread evenly over it")
    seeds: int = Field(3, ge=2, description="trainings of each in every way, and as many others of the full run")
    copies: tuple[NonNegativeInt, ...] = Field(
        (0, 1, 4), min_length=1, description="cached views; a fresh one in every epoch is always measured"
    )
    draws: tuple[Literal["rotation", "per_image"], ...] = Field(("rotation",), min_length=1)
    clean_shares: tuple[float, ...] = Field((0.0, 0.5), min_length=1, description="shares of clean views")
    policies: tuple[str, ...] = Field(
        (), description="augmentation policies by name, besides features.augmentation, e.g. flip_rotate_zoom"
    )
    epochs: int | None = Field(None, ge=2, description="of the full frozen run; default: search.epochs")
    finetuned: int = Field(
        12, ge=0, description="configurations that are fine-tuned too: good, middling and bad ones; 0: none"
    )
    finetune: FinetuneConfig | None = Field(
        None, description="how they are; default: as train.finetune says, from activation_copies"
    )
    activation_copies: int = Field(
        4, ge=0, description="copies of cached activations that they are trained from; 0: another view in every epoch"
    )
    resamples: int = Field(2000, ge=100, description="of the bootstrap intervals")
    cost_photos: int = Field(256, ge=8, description="photos by which times are measured")
    tolerance_points: float = Field(
        1.0, gt=0, description="points of accuracy from a fresh view in every epoch that count as none"
    )

    @field_validator("finetuned")
    @classmethod
    def _enough(cls, finetuned: int) -> int:
        if finetuned in (1, 2):
            raise ValueError(f"received {finetuned}; a ranking takes at least 3, and 0 leaves fine-tuning out")
        return finetuned

    @field_validator("policies")
    @classmethod
    def _known(cls, policies: tuple[str, ...]) -> tuple[str, ...]:
        for name in policies:
            if name not in POLICIES or name == "none":
                allowed = ", ".join(other for other in POLICIES if other != "none")
                raise ValueError(f"received {name!r}; allowed: {allowed}")
        return policies

    @field_validator("clean_shares")
    @classmethod
    def _shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        for share in shares:
            if not 0 <= share < 1:
                raise ValueError(f"`0 <= share < 1` must hold, but got {share:g}")
        return shares


class HistoryFile(Section):
    """One part of an earlier run: a Keras training history as CSV, and which epoch of the part before it goes on from."""

    path: UserPath
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
    compare: tuple[UserPath, ...] = Field(
        (), description="headhunt.yaml of other runs, whose studies are set beside this one"
    )
    confusions: int = Field(15, ge=1, le=100, description="pairs of classes listed as most often confused")
    fidelity: FidelityConfig = FidelityConfig()
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
