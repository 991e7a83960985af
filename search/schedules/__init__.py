"""Learning-rate schedules: one frozen class each, for searches (an array, one rate per step) and for full runs (Keras)."""

from search.schedules.base import Rates, ScheduleConfig
from search.schedules.cosine import Cosine, CosineRestarts, OneCycle, WarmupCosine
from search.schedules.cyclical import ExpRange, Triangular, Triangular2
from search.schedules.decay import Constant, Exponential, Polynomial, StepDecay
from search.schedules.kinds import SCHEDULES, Schedule
from search.schedules.plateau import Plateau, PlateauRule

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "ExpRange",
    "Exponential",
    "OneCycle",
    "Plateau",
    "PlateauRule",
    "Polynomial",
    "Rates",
    "Schedule",
    "ScheduleConfig",
    "StepDecay",
    "Triangular",
    "Triangular2",
    "WarmupCosine",
]
