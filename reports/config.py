"""The `reports` section of the configuration, and the model of the whole file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, field_validator

from features.augment import POLICIES
from features.config import Section
from train.config import FinetuneConfig, TrainRun


class FidelityConfig(Section):
    """The experiment that measures how well the cached search predicts the full run."""

    configurations: int = Field(16, ge=4, description="drawn from the search space, spread evenly over it")
    seeds: int = Field(3, ge=2, description="trainings of each on the same views")
    copies: tuple[NonNegativeInt, ...] = Field(
        (0, 1, 2, 4, 8, 16), min_length=1, description="cached views; a fresh one in every epoch is always measured"
    )
    draws: tuple[Literal["rotation", "per_image"], ...] = Field(("rotation", "per_image"), min_length=1)
    clean_shares: tuple[float, ...] = Field((0.0, 0.25, 0.5), min_length=1, description="shares of clean views")
    policies: tuple[str, ...] = Field(
        ("mild", "flip_rotate_zoom"), description="augmentation policies by name, besides features.augmentation"
    )
    epochs: int | None = Field(None, ge=2, description="of the full frozen run; default: search.epochs")
    finetuned: int = Field(
        6, ge=0, description="configurations that are fine-tuned too: good, middling and bad ones; 0: none"
    )
    finetune: FinetuneConfig | None = Field(None, description="how they are; default: as train.finetune says")
    resamples: int = Field(2000, ge=100, description="of the bootstrap intervals")
    cost_photos: int = Field(256, ge=8, description="photos by which times are measured")
    tolerance_points: float = Field(
        1.0, gt=0, description="points of accuracy from a fresh view in every epoch that count as none"
    )

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


class ReportsConfig(Section):
    """What the page shows."""

    leaders: int = Field(5, ge=1, le=20, description="trials whose curves are drawn")
    confusions: int = Field(15, ge=1, le=100, description="pairs of classes listed as most often confused")
    fidelity: FidelityConfig = FidelityConfig()


class Run(TrainRun):
    """The whole of `headhunt.yaml`."""

    reports: ReportsConfig = ReportsConfig()
