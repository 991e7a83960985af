"""Means, intervals and tests over seeds, against cases worked out by hand, a textbook's table, SciPy, and simulations."""

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


def test_two_trials_are_compared_as_scipy_does() -> None:
    """Of two, it is the permutation test of paired samples, two-sided, since either could have been the best."""
    from scipy.stats import permutation_test

    better, worse = [0.71, 0.76, 0.81, 0.66, 0.73, 0.7], [0.70, 0.745, 0.82, 0.65, 0.715, 0.69]
    wanted = permutation_test(
        (better, worse), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples", vectorized=True
    )
    assert compared_with_best([better, worse]) == pytest.approx([wanted.pvalue])
    assert compared_with_best([[0.9, 0.8]]) == []


def test_equal_trials_and_constant_ones() -> None:
    assert compared_with_best([[0.5, 0.6, 0.7]] * 3) == [1.0, 1.0]
    # Of the 2 · 2 orders against the first seed's, the two that put one trial on top everywhere are as far apart.
    assert compared_with_best([[0.6, 0.7, 0.8], [0.5, 0.6, 0.7]]) == [2 / 2**3]


def test_a_far_trial_hides_no_difference_between_the_others() -> None:
    """Without the third, which is judged first, the second is as it is when compared alone."""
    near, second, far = [0.9, 0.8, 0.85, 0.7, 0.75, 0.95], [0.88, 0.79, 0.83, 0.69, 0.74, 0.93], [0.1] * 6
    alone = compared_with_best([near, second])
    assert alone == [2 / 2**6]
    both = compared_with_best([near, second, far])
    assert both[1] < 0.01
    assert both[0] == pytest.approx(max(both[1], alone[0]))


@pytest.mark.parametrize(("trials", "seeds", "studies"), [(2, 6, 1000), (3, 4, 1000), (5, 3, 300)])
def test_where_no_trial_is_better_few_studies_say_that_one_is(trials: int, seeds: int, studies: int) -> None:
    """At most 5 % of studies, as drawn: 2.6 standard errors above it are allowed. A seed is easy or hard for all trials."""
    random, wrong = np.random.default_rng(trials), 0
    for _ in range(studies):
        values = random.normal(size=(trials, seeds)) + 2 * random.normal(size=seeds)
        values = values[np.argsort(-values.mean(1))]
        wrong += min(compared_with_best(values.tolist())) < 0.05
    assert wrong / studies < 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / studies)


def test_a_worse_trial_is_found() -> None:
    random, found = np.random.default_rng(0), 0
    for _ in range(100):
        values = random.normal(size=(3, 6)) - 4 * np.array([[0], [0], [1]])
        values = values[np.argsort(-values.mean(1))]
        found += compared_with_best(values.tolist())[-1] < 0.05
    assert found > 90
