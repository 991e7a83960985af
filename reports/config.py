"""The `reports` section of the configuration, and the model of the whole file."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from features.config import Section
from train.config import TrainRun


class ReportsConfig(Section):
    """What the page shows."""

    leaders: int = Field(5, ge=1, le=20, description="trials whose curves are drawn")
    compare: tuple[Path, ...] = Field(
        (), description="headhunt.yaml of other runs, whose studies are set beside this one"
    )
    confusions: int = Field(15, ge=1, le=100, description="pairs of classes listed as most often confused")


class Run(TrainRun):
    """The whole of `headhunt.yaml`."""

    reports: ReportsConfig = ReportsConfig()
