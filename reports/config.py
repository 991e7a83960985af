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

    configurations: int = Field(40, ge=4, description="number of configurations, spread evenly over the search space")
    seeds: int = Field(
        3, ge=2, description="seeds per configuration and way of training, and as many others for the full run"
    )
    copies: tuple[NonNegativeInt, ...] = Field(
        (0, 1, 4),
        min_length=1,
        description="numbers of cached views to measure; fresh views every epoch are always measured",
    )
    draws: tuple[Literal["rotation", "per_image"], ...] = Field(("rotation",), min_length=1)
    clean_shares: tuple[float, ...] = Field((0.0, 0.5), min_length=1, description="shares of clean views to measure")
    policies: tuple[str, ...] = Field(
        (),
        description="further augmentation policies by name, in addition to features.augmentation, e.g. flip_rotate_zoom",
    )
    epochs: int | None = Field(None, ge=2, description="epochs of the full frozen run; default: search.epochs")
    finetuned: int = Field(
        12, ge=0, description="configurations to fine-tune as well: good, average and bad ones; 0: none"
    )
    finetune: FinetuneConfig | None = Field(
        None, description="how they are fine-tuned; default: train.finetune with activation_copies as below"
    )
    activation_copies: int = Field(
        4, ge=0, description="copies of cached activations for this fine-tuning; 0: fresh views every epoch"
    )
    resamples: int = Field(2000, ge=100, description="resamples for the bootstrap intervals")
    cost_photos: int = Field(256, ge=8, description="photos used to measure times")
    tolerance_points: float = Field(
        1.0,
        gt=0,
        description="difference from fresh views every epoch, in points of accuracy, that is considered negligible",
    )

    @field_validator("finetuned")
    @classmethod
    def _enough(cls, finetuned: int) -> int:
        if finetuned in (1, 2):
            raise ValueError(
                f"received {finetuned}; it must be at least 3, since a ranking needs 3, or 0 for no fine-tuning"
            )
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
    """One part of an earlier run: a Keras training history as CSV, and the epoch of the previous part that it resumes from."""

    path: UserPath
    resumed_from: Literal["best", "best_accuracy", "last"] | PositiveInt = Field(
        "best",
        description="best: the lowest validation loss (what Keras's ModelCheckpoint keeps by default); best_accuracy: the "
        "highest validation accuracy; last; or an epoch number",
    )


def _history_file(value: Any) -> Any:
    if isinstance(value, dict):
        return HistoryFile.model_validate(value)
    if not isinstance(value, str | HistoryFile):
        raise ValueError("it must be the path of a CSV file, or {path, resumed_from}")
    return value


class HistoryConfig(Section):
    """An earlier run that was trained with another tool: its training histories in order."""

    name: str = Field(min_length=1, description="name on the page")
    files: tuple[Annotated[str | HistoryFile, BeforeValidator(_history_file)], ...] = Field(
        min_length=1, description="each is the path of a CSV file, or {path, resumed_from}"
    )

    @property
    def parts(self) -> list[HistoryFile]:
        """The files, all as HistoryFile."""
        return [file if isinstance(file, HistoryFile) else HistoryFile(path=Path(file)) for file in self.files]


class ReportsConfig(Section):
    """The contents of the page."""

    leaders: int = Field(5, ge=1, le=20, description="best trials to show in detail")
    compare: tuple[UserPath, ...] = Field(
        (), description="headhunt.yaml files of other runs, to compare their studies with this one"
    )
    confusions: int = Field(15, ge=1, le=100, description="most often confused pairs of classes to list")
    fidelity: FidelityConfig = FidelityConfig()
    mistakes: int = Field(12, ge=1, le=60, description="misclassified test photos of the best model to show")
    histories: tuple[HistoryConfig, ...] = Field(
        (),
        description="earlier runs to show: {name, files: [a.csv, b.csv]}, with Keras training histories in order",
    )

    @field_validator("histories")
    @classmethod
    def _told_apart(cls, value: tuple[HistoryConfig, ...]) -> tuple[HistoryConfig, ...]:
        name, times = next(iter(Counter(history.name for history in value).most_common(1)), ("", 0))
        if times > 1:
            raise ValueError(f"the name {name!r} is used {times} times. Give each run its own name")
        return value


class Run(TrainRun):
    """The complete `headhunt.yaml`."""

    reports: ReportsConfig = ReportsConfig()
