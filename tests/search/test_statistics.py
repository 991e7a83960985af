"""Means, intervals and tests over seeds, checked by hand, against a textbook's table, SciPy, and simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.confirm.statistics import compared_with_best, interval


def test_an_interval_is_students() -> None:
    """t(0.975) is 12.7062 for 1 degree of freedom, 2.7764 for 4, as in any table of it."""
    assert interval([0.7, 0.8]) == pytest.approx((0.75, 0.75 - 12.7062 * 0.05, 0.75 + 12.7062 * 0.05), abs=1e-5)
    values = [1.0, 2.0, 3.0, 4.0, 5.0]  # variance 10 / 4, so that s / √5 is √0.5
    half = 2.776445 * math.sqrt(0.5)
    assert interval(values) == pytest.approx((3.0, 3.0 - half, 3.0 + half), abs=1e-5)
    assert interval([0.5, 0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="an interval needs at least 2 values, but got 1"):
        interval([0.7])


def test_an_interval_of_shares_ends_at_0_and_1() -> None:
    low, high = interval([0.9, 1.0], is_share=True)[1:]
    assert (low, high) == (pytest.approx(0.95 - 12.7062 * 0.05, abs=1e-5), 1.0)
    assert interval([0.0, 0.1], is_share=True).low == 0.0


def test_an_interval_of_losses_begins_at_0() -> None:
    """0.5 and 0.8: mean 0.65, standard error 0.15, so that the upper end is 0.65 + 12.7062 · 0.15 = 2.5559, above 1."""
    assert interval([0.5, 0.8], is_loss=True) == pytest.approx((0.65, 0.0, 2.55593), abs=1e-5)
    assert interval([3.0, 3.1], is_loss=True).low == pytest.approx(3.05 - 12.7062 * 0.05, abs=1e-5)


def test_two_trials_are_compared_as_scipy_does() -> None:
    """For two trials it is the two-sided paired t-test, since either could have been the best."""
    from scipy.stats import ttest_rel

    better, worse = [0.71, 0.76, 0.81, 0.66, 0.73, 0.7], [0.70, 0.745, 0.82, 0.65, 0.715, 0.69]
    wanted = ttest_rel(better, worse).pvalue
    assert compared_with_best([better, worse]) == pytest.approx([wanted])
    assert compared_with_best([worse, better]) == pytest.approx([wanted])  # for losses, lower is better
    assert compared_with_best([[0.9, 0.8]]) == []


def test_equal_trials_and_constant_ones() -> None:
    assert compared_with_best([[0.5, 0.6, 0.7]] * 3) == [1.0, 1.0]
    assert compared_with_best([[0.0, 0.0]] * 2) == [1.0]
    assert compared_with_best([[0.6, 0.6, 0.6], [0.5, 0.5, 0.5]]) == pytest.approx([0])  # neither depends on the seed
    # A photo of 18 apart with both seeds: half a step's variance of 2 / 12 per difference, t = √12 with 1 degree of freedom, for
    # which P(|t| > x) = 1 - 2 atan(x) / π.
    one_photo = compared_with_best([[10 / 18] * 2, [9 / 18] * 2], 1 / 18)
    assert one_photo == pytest.approx([1 - 2 * math.atan(math.sqrt(12)) / math.pi])


def test_the_larger_of_tukeys_test_and_the_paired_one_counts() -> None:
    """Two trials that do not depend on the seed, and one whose values are √3 apart. By hand, the residual variance is
    2/3 · 6 / 4 = 1, so that the first two are 5.040 standard errors apart: 5 % for 3 means and 4 degrees of freedom, in any table
    of the studentised range. The third one's t is its distance, and P(|t| > x) = 1 - x / √(2 + x²) with 2 degrees of freedom."""
    distance, apart = 5.040 / math.sqrt(3), math.sqrt(3)
    rows = [[distance] * 3, [0.0] * 3, [-50 - apart, -50.0, -50 + apart]]
    t = distance + 50
    paired = 2 * (1 - t / math.sqrt(2 + t**2))
    assert compared_with_best(rows) == pytest.approx([0.05, paired], abs=1e-4, rel=1e-6)


SPREADS = {
    "two": ([1, 1], 6),
    "two of two seeds": ([1, 1], 2),
    "a probe, two seeds": ([0, 1], 2),
    "equal": ([1] * 5, 3),
    "unequal": ([0.5, 0.7, 1, 1.4, 2], 3),
    "a noisy one": ([1, 1, 1, 10], 3),
    "a probe": ([0, 0.5, 0.7, 1.4, 2], 3),
    "many": ([1] * 9 + [5], 5),
}
"""Standard deviations of the trials' values, and seeds."""


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("case", SPREADS)
def test_where_no_trial_is_better_few_studies_say_that_one_is(
    case: str, rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 5 % of studies: 2.6 standard errors above that are allowed, so that a method with 8 % fails. A seed is easy or hard
    for all trials, unless there is a probe; accuracies on few photos move in steps."""
    from scipy import stats

    spreads, seeds = SPREADS[case]
    trials, studies, random = len(spreads), 1500, np.random.default_rng(len(case))
    grid = np.geomspace(0.1, 1000, 200)  # scipy takes milliseconds for each call
    tail = stats.studentized_range.sf(grid, trials, (trials - 1) * (seeds - 1))
    monkeypatch.setattr(stats.studentized_range, "sf", lambda q, k, df: np.interp(q, grid, tail))
    drawn = random.normal(size=(studies, trials, seeds)) * np.array(spreads)[:, None]
    drawn += (0 if case == "a probe" else 2) * random.normal(size=(studies, 1, seeds))
    drawn = drawn.round() if rounded else drawn
    wrong = 0
    for values in drawn:
        wrong += min(compared_with_best(values[np.argsort(-values.mean(1))].tolist(), float(rounded))) < 0.05
    assert wrong / studies < 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.parametrize(("seeds", "least"), [(3, 60), (6, 95)])
def test_a_worse_trial_is_found(seeds: int, least: int) -> None:
    """By 8 standard deviations with 3 seeds, by 4 with 6."""
    random, found = np.random.default_rng(0), 0
    for _ in range(100):
        values = random.normal(size=(3, seeds)) - 24 / seeds * np.array([[0], [0], [1]])
        values = values[np.argsort(-values.mean(1))]
        found += compared_with_best(values.tolist())[-1] < 0.05
    assert found > least
