"""What a few values per trial say: a mean with its interval, and whether one trial is better than another.

The values of two trials are paired by seed: seed s gives both the same batches, views and random streams, so that what a seed
makes easy or hard for both of them cancels in their difference (Bouthillier et al. 2021, "Accounting for Variance in Machine
Learning Benchmarks"). What varies is the training, on one split: intervals and tests say nothing about other photos.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95

DRAWN = 20_000
"""Orders that are drawn where there are more: a p-value of 5 % is known to 0.3 points (two standard errors)."""


class Interval(NamedTuple):
    """A mean and the interval that holds the true one in 95 % of cases."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], is_share: bool = False) -> Interval:
    """The mean of at least two values with its 95 % interval: mean ± t · s / √n, t of n - 1 degrees of freedom (Student 1908).

    That of shares, such as accuracies, ends at 0 and 1.
    """
    from scipy import stats

    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values, but got {len(values)}")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    low, high = mean - half, mean + half
    return Interval(mean, max(low, 0.0), min(high, 1.0)) if is_share else Interval(mean, low, high)


def compared_with_best(values: Sequence[Sequence[float]]) -> list[float]:
    """The p-value of "the best is no better than this one", for each row of `values` (trials, seeds) but the first, which has the
    best mean.

    The best is the best of the same values, so that some row is far from it even where no row differs. So each is held to the
    largest distance between two means that chance makes: if rows do not differ, the values of one seed could as well stand in
    any order (permutations within blocks). The p-value is the share of such orders, all of them or DRAWN, whose means lie as far
    apart as these two do. That is the single-step maximum statistic; stepping down, from the farthest row to the nearest, leaves
    out rows that were judged before (Westfall and Young 1993, "Resampling-Based Multiple Testing"; Romano and Wolf 2005). Where
    no row differs, the smallest of the p-values is below 5 % in 5 % of cases at most.
    """
    table = np.asarray(values, np.float64)
    distances = np.abs(table.mean(1) - table[0].mean())
    found, least, left = np.ones(len(table)), 0.0, list(range(len(table)))
    for row in sorted(range(1, len(table)), key=lambda row: -distances[row]):
        least = max(least, _share_as_far_apart(table[left], float(distances[row])))
        found[row] = least
        left.remove(row)
    return [float(p_value) for p_value in found[1:]]


def _share_as_far_apart(table: npt.NDArray[np.float64], distance: float) -> float:
    """The share of orders within seeds whose largest and smallest means differ by at least `distance`."""
    trials, seeds = table.shape
    rounding = 1e-9 * float(np.abs(table).max())
    # Only orders against each other matter: the first seed's stays.
    if math.factorial(trials) ** (seeds - 1) <= DRAWN:
        orders = np.array(list(permutations(range(trials))))
        sums = table[:, 0][None]
        for seed in range(1, seeds):
            sums = (sums[:, None] + table[orders, seed][None]).reshape(-1, trials)
        as_far = np.ptp(sums / seeds, axis=1) >= distance - rounding
        return float(as_far.mean())
    drawn = np.random.default_rng(0).permuted(np.broadcast_to(table, (DRAWN, trials, seeds)), axis=1)
    as_far = np.ptp(drawn.mean(2), axis=1) >= distance - rounding
    return float((as_far.sum() + 1) / (DRAWN + 1))  # the order that was seen is one of them
