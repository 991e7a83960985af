"""Response and request models of the service, as in its OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from headhunt.service.jobs.records import Kind, State
from train.promotion.artifact import PromotionSummary


class Answer(BaseModel):
    """Base of every response."""

    model_config = ConfigDict(frozen=True)


class Problem(Answer):
    """Why a request was rejected: what was received, what is allowed, what to do next."""

    detail: str
    faults: list[str] | None = Field(None, description="of a configuration, each with its key path")


class Health(Answer):
    """Whether the service, Ray and the storage respond."""

    status: Literal["ok", "degraded"]
    ray: Literal["ok", "unreachable"]
    storage: Literal["ok", "unreachable"]
    version: str


class JobStatus(Answer):
    """A job of a search; times are UTC in ISO 8601."""

    number: int
    kind: Kind
    state: State
    stage: str | None
    created: str
    started: str | None
    ended: str | None
    message: str | None
    ray_id: str = Field(description="the submission id in Ray's own job list")


class TrialCounts(Answer):
    """The search's trials by state. `total` is the configured number (or the number in the study, if larger). `added` counts
    trials that others added to the study: they are neither ranked nor promoted."""

    total: int
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    added: int = 0


class Best(Answer):
    """The best completed trial."""

    number: int
    value: float
    params: dict[str, Any]


class SearchStatus(Answer):
    """The status of a search."""

    name: str
    state: State
    stage: str | None
    message: str | None
    objective: str
    study_id: int | None
    trials: TrialCounts
    trials_per_minute: float | None
    images_per_second: float | None = Field(description="of the latest build of its feature cache")
    best: Best | None
    created: str
    jobs: list[JobStatus]
    promotions: int
    exports: int
    report: bool


class Searches(Answer):
    """All searches, newest first."""

    searches: list[SearchStatus]


class Point(Answer):
    """A completed trial, and the best value so far."""

    number: int
    value: float
    best: float


class History(Answer):
    """The values of a search's completed trials by trial number, thinned to a few hundred; every improvement is kept."""

    objective: str
    points: list[Point]


class TopTrial(Answer):
    """A row of the leaderboard."""

    number: int
    value: float
    top5: float | None
    params: dict[str, Any]


class Top(Answer):
    """The leaderboard, best first."""

    trials: list[TopTrial]


class Promotion(PromotionSummary):
    """A finished promotion as in `headhunt train promote --json`, but with `folder` relative to the work directory."""


class Promotions(Answer):
    """The finished promotions of a search, best first."""

    promotions: list[Promotion]


class Exported(Answer):
    """A trial's export and its downloadable formats."""

    trial: int
    formats: list[str]


class Exports(Answer):
    """The exports of a search."""

    exports: list[Exported]


class PromotionRequest(BaseModel):
    """The trials to promote: the best `top`, or those with these numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    top: Annotated[int, Field(ge=1, le=100)] | None = None
    trials: Annotated[list[Annotated[int, Field(ge=0, le=10**9)]], Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _one(self) -> PromotionRequest:
        if self.top is not None and self.trials is not None:
            raise ValueError("received both top and trials; give only one of them")
        return self

    @property
    def arguments(self) -> list[str]:
        """As options of `headhunt train promote`."""
        if self.trials is not None:
            return [part for trial in self.trials for part in ("--trial", str(trial))]
        return [] if self.top is None else ["--top", str(self.top)]
