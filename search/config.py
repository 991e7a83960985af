"""The `search` section of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from features.config import FeaturesRun, Section, Workers
from features.views import Views
from search.space import SearchSpace
from search.trial import Objective


class SearchConfig(Section):
    """Trials of heads and schedules on the cached features."""

    sampler: Literal["tpe", "random", "qmc"] = "tpe"
    pruner: Literal["none", "median", "successive_halving", "hyperband"] = "hyperband"
    trials: int = Field(200, ge=1)
    epochs: int = Field(30, ge=1)
    generation: int = Field(
        8, ge=1, description="trials asked for together; the results depend on it, but not on the number of workers"
    )
    objective: Objective = "val_accuracy"
    views: Views = Views()
    space: SearchSpace = SearchSpace()
    storage: str = Field("sqlite", description="sqlite | journal | any SQLAlchemy URL | grpc://host:port")
    keep: int = Field(20, ge=1, description="trials whose weights stay on disk, the best ones")
    workers: Workers = Workers(count=2, cpus=1)
    seed: int = Field(0, ge=0)


class SearchRun(FeaturesRun):
    """The part of `headhunt.yaml` that the search stage reads."""

    search: SearchConfig = SearchConfig()
