"""What a few values per trial say: a mean with its interval, and whether one trial is better than another.

The values of two trials are paired by seed: seed s gives both the same batches, views and random streams, so that what a seed
makes easy or hard for both of them cancels in their difference (Bouthillier et al. 2021, "Accounting for Variance in Machine
Learning Benchmarks"). What varies is the training, on one split: intervals and tests say nothing about other photos.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and the interval that holds the true one in 95 % of cases."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """The mean of at least two values with its 95 % interval: mean ± t · s / √n, t of n - 1 degrees of freedom (Student 1908).

    The interval is not cut at 0 or 1, which that of an accuracy near 1 may pass.
    """
    from scipy import stats

    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 values, but got {len(values)}")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def paired_p_value(values: Sequence[float], others: Sequence[float]) -> float:
    """The two-sided p-value of "both have the same mean", of values paired by seed: the paired t-test (`scipy.stats.ttest_rel`,
    Student 1908).

    Not Wilcoxon's signed-rank test: the smallest p that it gives for n pairs is 2 / 2ⁿ, 0.0625 for 5 seeds, so that it could
    never tell two trials apart at 5 %. The t-test takes the differences as normal, which so few values cannot show. It has no
    answer where all differences are the same number, as those of accuracies on few photos may be: then 1 if that is 0, else
    the sign test's 2 / 2ⁿ.
    """
    from scipy import stats

    differences = np.subtract(values, others)
    rounding = 1e-9 * float(np.abs([*values, *others]).max())
    if np.ptp(differences) <= rounding:
        return 1.0 if abs(differences[0]) <= rounding else 2.0 ** (1 - len(values))
    return float(stats.ttest_rel(values, others).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, in the order given: where no trial differs, one below 5 % comes up in one of 20
    rankings at most, not in one of 20 comparisons.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none is below one that was smaller before (Holm 1979,
    "A Simple Sequentially Rejective Multiple Test Procedure").
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, position in enumerate(sorted(range(len(p_values)), key=lambda n: p_values[n])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[position]))
        adjusted[position] = least
    return adjusted
