"""What the service answers and takes, as its OpenAPI document describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from headhunt.service.jobs.records import Kind, State
from train.promotion.artifact import PromotionSummary


class Answer(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(frozen=True)


class Problem(Answer):
    """Why a request was refused: what was received, what is allowed, what to do next."""

    detail: str
    faults: list[str] | None = Field(None, description="of a configuration, one by one, each with its key path")


class Health(Answer):
    """Whether the service and what it stands on answer."""

    status: Literal["ok", "degraded"]
    ray: Literal["ok", "unreachable"]
    storage: Literal["ok", "unreachable"]
    version: str


class JobStatus(Answer):
    """A job of a search; times in UTC, ISO 8601."""

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
    """The search's trials by state; `total` is what it asks for, `added` counts those that others added to the study: they are
    neither ranked nor promoted."""

    total: int
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: int = 0
    added: int = 0


class Best(Answer):
    """The best trial that ran to its end."""

    number: int
    value: float
    params: dict[str, Any]


class SearchStatus(Answer):
    """A search and how it stands."""

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
    """Every search, the newest first."""

    searches: list[SearchStatus]


class Point(Answer):
    """A trial that ran to its end, and the best value up to it."""

    number: int
    value: float
    best: float


class History(Answer):
    """The values of a search's trials in the order of their numbers, thinned to a few hundred; improvements are all there."""

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
    """A finished promotion, as `--json` of `headhunt train promote` has it; here `folder` is relative to the work directory."""


class Promotions(Answer):
    """The finished promotions of a search, the best first."""

    promotions: list[Promotion]


class Exported(Answer):
    """A trial's export and what can be downloaded of it."""

    trial: int
    formats: list[str]


class Exports(Answer):
    """What a search has exported."""

    exports: list[Exported]


class PromotionRequest(BaseModel):
    """Which trials are promoted: the best `top`, or those of these numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    top: Annotated[int, Field(ge=1, le=100)] | None = None
    trials: Annotated[list[Annotated[int, Field(ge=0, le=10**9)]], Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _one(self) -> PromotionRequest:
        if self.top is not None and self.trials is not None:
            raise ValueError("both top and trials are given; leave one of them out")
        return self

    @property
    def arguments(self) -> list[str]:
        """As options of `headhunt train promote`."""
        if self.trials is not None:
            return [part for trial in self.trials for part in ("--trial", str(trial))]
        return [] if self.top is None else ["--top", str(self.top)]
