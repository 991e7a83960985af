"""Means, intervals and tests over seeds, against cases worked out by hand or printed in a textbook's table."""

from __future__ import annotations

import math

import pytest

from search.confirm.statistics import holm, interval, paired_p_value


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


def test_the_paired_test_looks_at_differences() -> None:
    """Differences 1, 2, 3: t = 2 / (1 / √3) = 3.4641, and with 2 degrees of freedom p = 1 - t / √(t² + 2) = 0.0742."""
    p_value = 1 - math.sqrt(12) / math.sqrt(14)
    assert paired_p_value([11.0, 22.0, 33.0], [10.0, 20.0, 30.0]) == pytest.approx(p_value)
    assert paired_p_value([10.0, 20.0, 30.0], [11.0, 22.0, 33.0]) == pytest.approx(p_value)


def test_pairs_tell_apart_what_differs_less_than_the_seeds_do() -> None:
    from scipy import stats

    better, worse = [0.71, 0.76, 0.81, 0.66, 0.73], [0.70, 0.745, 0.80, 0.65, 0.715]
    assert paired_p_value(better, worse) < 0.01
    assert stats.ttest_ind(better, worse).pvalue > 0.7


def test_equal_differences_have_no_spread_to_test_by() -> None:
    assert paired_p_value([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]) == 1.0
    assert paired_p_value([0.0, 0.0], [0.0, 0.0]) == 1.0
    assert paired_p_value([0.6, 0.7, 0.8], [0.5, 0.6, 0.7]) == 2 / 2**3


def test_holms_correction() -> None:
    """Of 4: the smallest times 4, the next times 3, then 2, then 1; never below one that was smaller, never above 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
