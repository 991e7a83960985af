"""TrialConfig: everything that a trial is trained with; TrialResult: the result of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from features.cache.views import Views
from features.config import Pooling
from features.runtime.section import Section
from search.heads import HeadConfig
from search.optimizers import LBFGS, Adam, TrialOptimizer
from search.schedules import Constant, Schedule


class Configuration(Protocol):
    """What a study needs to know of a trial's configuration, whatever it trains."""

    @property
    def epochs(self) -> int:
        """How many epochs it trains for."""
        ...

    def model_dump_json(self) -> str:
        """As JSON, from which `Objective.parse` makes it again."""
        ...

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """With other values for some fields, among them `seed` and `epochs`."""
        ...


class HypermodelChoice(Section):
    """What a hypermodel's model is built from: `module:function`, and the values drawn by its `hp` calls."""

    function: str
    values: dict[str, bool | int | float | str]


class FeatureParts(Section):
    """The part of the cached features that a head sees."""

    parts: Pooling | None = Field(None, description="parts of features.pooling, joined by +; default: all cached parts")


class TrialConfig(Section):
    """One head, the features that it sees, its schedule, optimiser, batch size and views; `seed` is for its initial weights and
    dropout.

    With `hypermodel`, that function builds the model, its optimiser and its loss; head, schedule and optimizer do not apply.
    """

    features: FeatureParts = FeatureParts()
    head: HeadConfig = HeadConfig()
    schedule: Schedule = Constant()
    optimizer: TrialOptimizer = Adam()
    batch_size: int = Field(32, ge=1)
    views: Views = Views()
    epochs: int = Field(30, ge=1)
    seed: int = Field(0, ge=0)
    hypermodel: HypermodelChoice | None = None

    @property
    def is_probe(self) -> bool:
        """Whether this is a linear probe, which is solved, not trained: schedule, batch size and seed do not apply."""
        return isinstance(self.optimizer, LBFGS)

    @model_serializer(mode="wrap")
    def _meant(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omits fields that do not apply to this trial."""
        left_out = ["hypermodel"] if self.hypermodel is None else ["head", "schedule", "optimizer"]
        if self.features.parts is None:
            left_out.append("features")
        if self.is_probe:
            left_out += ["schedule", "batch_size"]
        return {name: value for name, value in plain(self).items() if name not in left_out}


def values_of(config: TrialConfig) -> dict[str, Any]:
    """The values of a head's trial by their parameter names in a space: `head.units_1`, `schedule.learning_rate`."""
    plain = config.model_dump()
    units = plain["head"].pop("units")
    plain["head"] |= {"layers": len(units), **{f"units_{place}": width for place, width in enumerate(units, start=1)}}
    if config.views.copies == 0:
        plain["views"]["clean_share"] = 1.0  # the same photos, as a space that draws the share expresses it
    flat = {name: value for name, value in plain.items() if not isinstance(value, dict)}
    for section, inner in plain.items():
        if isinstance(inner, dict):
            flat |= {f"{section}.{name}": value for name, value in inner.items()}
    return flat


class EpochMetrics(NamedTuple):
    """One row of a trial's curves; `epoch` counts from 1, the learning rate is the last of the epoch."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    val_top5_accuracy: float
    learning_rate: float


@dataclass
class TrialState:
    """A trial between two rungs, as plain arrays, so that it can continue on another worker."""

    trainable: list[Any]
    non_trainable: list[Any]
    optimizer: list[Any]
    best_trainable: list[Any]
    best_non_trainable: list[Any]
    curves: list[EpochMetrics] = field(default_factory=list)
    best_epoch: int = 0
    failure: str | None = None

    @property
    def arrays(self) -> list[list[Any]]:
        """The arrays that a program updates."""
        return [self.trainable, self.non_trainable, self.optimizer, self.best_trainable, self.best_non_trainable]


class WorkSpan(NamedTuple):
    """A trial's part in a task: the worker, when it started (seconds since 1970 by that machine's clock), the number of
    epochs."""

    worker: str
    started: float
    epochs: int


class TrialResult(NamedTuple):
    """The result of training a trial up to some epoch; `weights` are those of `best_epoch`.

    `state` is what to continue from, None if nothing is left to do; `span` says which worker trained it and when, None if none
    did. `config` is the trial's configuration if training changed it: a probe's, with the chosen L2. `doubts` are notes on the
    result, one line each.
    """

    curves: tuple[EpochMetrics, ...]
    best_epoch: int
    weights: dict[str, npt.NDArray[np.float32]]
    failure: str | None
    seconds: float
    doubts: tuple[str, ...] = ()
    state: TrialState | None = None
    span: WorkSpan | None = None
    config: Configuration | None = None
