"""Metric: what trials are judged by, and which values are better."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Metric = Literal["val_accuracy", "val_loss", "val_top5_accuracy"]
"""Measured on the validation photos: a share of them, or the mean cross-entropy."""


def direction(metric: Metric) -> Literal["minimize", "maximize"]:
    """The metric's direction in Optuna's terms."""
    return "minimize" if metric == "val_loss" else "maximize"


def sign(metric: Metric) -> Literal[1, -1]:
    """The factor that makes larger values better."""
    return -1 if metric == "val_loss" else 1


def is_at_least(metric: Metric, value: float, other: float) -> bool:
    """Whether a value is at least as good as another."""
    return sign(metric) * value >= sign(metric) * other


def best_of(metric: Metric, values: Iterable[float]) -> float:
    """The best of some values."""
    return max(values, key=lambda value: sign(metric) * value)


def is_share(metric: Metric) -> bool:
    """Whether the metric is a share of the photos, from 0 to 1, which tables show in percent."""
    return metric != "val_loss"
