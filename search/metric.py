"""Metric: what trials are judged by, and which of two values is better."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Metric = Literal["val_accuracy", "val_loss", "val_top5_accuracy"]
"""Of the validation photos: a share of them, or the mean cross-entropy."""


def direction(metric: Metric) -> Literal["minimize", "maximize"]:
    """As Optuna calls it."""
    return "minimize" if metric == "val_loss" else "maximize"


def sign(metric: Metric) -> Literal[1, -1]:
    """What a value is multiplied by for larger ones to be better."""
    return -1 if metric == "val_loss" else 1


def is_at_least(metric: Metric, value: float, other: float) -> bool:
    """Whether a value is as good as another, or better."""
    return sign(metric) * value >= sign(metric) * other


def best_of(metric: Metric, values: Iterable[float]) -> float:
    """The best of some values."""
    return max(values, key=lambda value: sign(metric) * value)


def is_share(metric: Metric) -> bool:
    """Whether its values are shares of the photos, from 0 to 1, which tables show in percent."""
    return metric != "val_loss"
