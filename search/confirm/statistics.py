"""Statistics over a few values per trial: a mean with its interval, and whether one trial is better than another.

The values of two trials are paired by seed: seed s gives both the same batches, views and random streams, so that whatever a seed
makes easier or harder for both cancels in their difference (Bouthillier et al. 2021, "Accounting for Variance in Machine Learning
Benchmarks"). Only the training varies, on one split: intervals and tests say nothing about other photos.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean with its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], is_share: bool = False, is_loss: bool = False) -> Interval:
    """The mean of at least two values with its 95 % interval: mean ± t · s / √n, t with n - 1 degrees of freedom (Student 1908).

    For shares, such as accuracies, the interval is clipped to 0 and 1, for losses (cross-entropies) to 0 below.
    """
    from scipy.special import stdtrit

    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values, but got {len(values)}")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(len(values))
    low = max(mean - half, 0.0) if is_share or is_loss else mean - half
    return Interval(mean, low, min(mean + half, 1.0) if is_share else mean + half)


def compared_with_best(values: Sequence[Sequence[float]], step: float = 0.0) -> list[float]:
    """The p-value of "the best is no better than this one" for each row of `values` (trials, seeds) except the first, which has
    the best mean.

    It is the larger of two p-values, neither of which is valid alone:

    - Tukey's test of the distance between two means, with the noise pooled over all trials (the residuals after removing the
      means of trials and seeds). It accounts for the best being chosen from the same values: even without true differences, some
      trial is far behind it. But it assumes that all trials vary equally; if one varies more, or (a linear probe) not at all, a
      nominal 5 % may become 30 %.
    - The paired t-test of these two trials alone, times the number of comparisons (Bonferroni), as Maxwell 1980 advises for
      unequal variances ("Pairwise Multiple Comparisons in Repeated Measures Designs"). But it ignores that the best was chosen.

    Values that move in steps, as accuracies do by one photo, may be equal by chance. Their spread counts as at least that of
    rounding to steps of `step`: a variance of step² / 12 (Sheppard 1898).

    In simulations without true differences, the smallest p-value is below 5 % in at most 5 % of studies: 2 to 20 trials, 2 or
    more seeds, some trials varying 20 times as much as others or not at all, including discrete steps and skewed noise. Among 5
    trials, one that is worse by 4 standard deviations of a seed is found in 34 % of studies with 3 seeds and in 96 % with 5; by 2
    standard deviations in 9 %, 46 %, and with 8 seeds in 88 %.
    """
    from scipy import stats

    table = np.asarray(values, np.float64)
    others, freedom = len(table) - 1, table.shape[1] - 1
    if not others:
        return []
    differences = table[0] - table[1:]
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    pooled = np.sqrt((rest**2).sum() / (others * freedom))
    rounding = 1e-9 * max(1.0, float(np.abs(table).max()))  # of floating-point numbers, which is no spread
    least = max(rounding, step / math.sqrt(12))
    distances = np.abs(differences.mean(1)) * math.sqrt(freedom + 1)
    tukey = stats.studentized_range.sf(distances / max(pooled, least), others + 1, others * freedom)
    paired = 2 * others * stats.t.sf(distances / np.maximum(differences.std(1, ddof=1), math.sqrt(2) * least), freedom)
    return [float(p_value) for p_value in np.maximum(tukey, paired).clip(0, 1)]
