"""The `search` section of the configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from features.cache.views import Views
from features.config import FeaturesRun
from features.runtime.section import Section
from features.runtime.workers.config import Workers
from search.first_trials import TITLES, FirstTrial
from search.metric import Metric
from search.pruners.choice import PrunerName
from search.samplers.choice import cannot_search
from search.space import SearchSpace


class ConfirmConfig(Section):
    """Retrains the leaders with other seeds before one of them is promoted."""

    top: int = Field(5, ge=1, description="number of leaders")
    seeds: int = Field(3, ge=2, description="seeds per leader; a linear probe depends on no seed and is solved once")


class SearchConfig(Section):
    """Trials of heads and schedules on the cached features."""

    sampler: Literal[
        "tpe",
        "gp",
        "random",
        "cmaes",
        "qmc",
        "grid",
        "keras_tuner.random",
        "keras_tuner.bayesian",
        "keras_tuner.hyperband",
    ] = "tpe"
    pruner: PrunerName = Field(
        "quarters", description="always none with the sampler keras_tuner.hyperband, which stops trials itself"
    )
    trials: int = Field(
        40, ge=1, description="maximum number of trials; a grid may have fewer; raise it to extend a finished study"
    )
    hours: float | None = Field(
        None,
        gt=0,
        description="start no new trials after this many hours of search, summed over all runs of the study",
    )
    target: float | None = Field(None, description="stop once a completed trial reaches this value of the objective")
    epochs: int = Field(30, ge=1)
    generation: int = Field(
        8, ge=1, description="trials asked for together; results depend on it, but not on the number of workers"
    )
    lanes: int | None = Field(
        None,
        ge=1,
        description="trials of the same structure trained side by side in one compiled program; default: 1 on a CPU, where "
        "trials take turns so that each has the processor's cache to itself, 64 on a GPU",
    )
    objective: Metric = "val_accuracy"
    first: tuple[FirstTrial, ...] = Field(
        ("probe", "known_good", "notebook"),
        description="tried in this order before any trial is drawn: probe (logistic regression on clean photos), known_good "
        "(a wide hidden layer on clean photos), notebook (the notebooks' classifier on augmented photos); [] skips them",
    )
    views: Views | None = Field(
        None,
        description="how trials see the cached copies: policy, copies, clean_share, draw ({copies: 0}: clean photos only); "
        "default: searched, drawn for each trial",
    )
    space: SearchSpace = SearchSpace()
    hypermodel: str | None = Field(
        None,
        description="module:name of a KerasTuner build(hp) that returns a compiled model, or of a HyperModel; replaces space",
    )
    hypermodel_values: dict[str, bool | int | float | str] = Field(
        {}, description="hyperparameters of the hypermodel fixed at a value instead of drawn"
    )
    storage: str = Field(
        "sqlite",
        description="sqlite | journal | postgresql://user@host/database or any SQLAlchemy URL | grpc://host:port",
    )
    confirm: ConfirmConfig | None = Field(
        ConfirmConfig(),
        description="`headhunt run` confirms the leaders before it promotes the best of them; null skips this",
    )
    keep: int = Field(20, ge=1, description="number of best trials whose weights stay on disk")
    workers: Workers = Workers(count=2, cpus=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _one_hyperband(cls, raw: Any) -> Any:
        """KerasTuner's Hyperband stops trials itself by giving them few epochs; a pruner on top would break its brackets."""
        if isinstance(raw, dict) and raw.get("sampler") == "keras_tuner.hyperband":
            raw = {"pruner": "none", **raw}
            if raw["pruner"] != "none":
                raise ValueError(
                    f"pruner: received {raw['pruner']!r}, but the sampler keras_tuner.hyperband stops trials itself. Set "
                    "pruner: none, or choose another sampler"
                )
        return raw

    @field_validator("first")
    @classmethod
    def _each_once(cls, first: tuple[FirstTrial, ...]) -> tuple[FirstTrial, ...]:
        twice = [name for name in first if first.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is listed twice; list each of {', '.join(TITLES)} at most once")
        return first

    @model_validator(mode="after")
    def _searchable(self) -> SearchConfig:
        if self.hypermodel is not None:
            if self.space != SearchSpace():
                raise ValueError(
                    "both space and hypermodel are set, but a hypermodel defines its own space. Remove one of them"
                )
            return self
        if self.hypermodel_values:
            raise ValueError(
                "hypermodel_values is set without a hypermodel. Set hypermodel, or remove hypermodel_values"
            )
        fault = cannot_search(self.sampler, self.space.parameters())
        if fault:
            raise ValueError(fault)
        return self


class SearchRun(FeaturesRun):
    """The part of `headhunt.yaml` that the search stage reads."""

    search: SearchConfig = SearchConfig()
