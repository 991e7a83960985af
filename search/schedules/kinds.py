"""The tagged union of all schedules: to add one, write a class and add it here."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from search.schedules.base import ScheduleConfig
from search.schedules.cosine import Cosine, CosineRestarts, OneCycle, WarmupCosine
from search.schedules.cyclical import ExpRange, Triangular, Triangular2
from search.schedules.decay import Constant, Exponential, Polynomial, StepDecay
from search.schedules.plateau import Plateau

Schedule = Annotated[
    Constant
    | StepDecay
    | Exponential
    | Polynomial
    | Triangular
    | Triangular2
    | ExpRange
    | Cosine
    | CosineRestarts
    | WarmupCosine
    | OneCycle
    | Plateau,
    Field(discriminator="kind"),
]
SCHEDULES: dict[str, type[ScheduleConfig]] = {
    schedule.model_fields["kind"].default: schedule for schedule in get_args(get_args(Schedule)[0])
}
"""Every schedule by kind. A parameter name shared by several schedules has the same type in all of them."""
