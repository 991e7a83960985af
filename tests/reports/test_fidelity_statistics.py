"""The fidelity study's statistics, compared with scipy and with cases of known results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from reports.fidelity import statistics
from reports.fidelity.statistics import (
    Closing,
    Draws,
    Ranking,
    better_half,
    closing,
    draw,
    effect,
    gap,
)

pytestmark = pytest.mark.unit


def without_losses(how: Callable[..., Ranking]) -> Callable[[np.ndarray, np.ndarray, Draws], Ranking]:
    """The comparison where losses decide nothing."""
    return lambda values, truth, draws: how(values, np.zeros_like(values), truth, draws)


compare, compare_single = without_losses(statistics.compare), without_losses(statistics.compare_single)


def noisy(truth: np.ndarray, noise: float, seeds: int = 3, seed: int = 0) -> np.ndarray:
    """Accuracies (configurations, seeds) around a truth (configurations,)."""
    return truth[:, None] + noise * np.random.default_rng(seed).standard_normal((len(truth), seeds))


def test_correlations_are_scipys_also_with_ties() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        a, b = random.integers(0, 6, (2, 12)).astype(float)
        assert statistics.spearman(a[None], b[None])[0] == pytest.approx(stats.spearmanr(a, b).statistic)
        assert statistics.kendall(a[None], b[None])[0] == pytest.approx(stats.kendalltau(a, b).statistic)
    same = np.ones((1, 5))
    assert np.isnan(statistics.spearman(same, same)[0])
    assert np.isnan(statistics.kendall(same, same)[0])


def test_the_same_ranking_agrees_and_costs_nothing() -> None:
    truth = np.linspace(0.3, 0.8, 12)
    found = compare(noisy(truth, 0.001), noisy(truth, 0.001, seed=1), draw(12, 3, 500))
    assert found.spearman.value == pytest.approx(1)
    assert found.spearman.low > 0.9
    assert found.kendall.value == pytest.approx(1)
    assert (found.top1_regret.value, found.top3_regret.value) == (0, 0)


def test_regret_is_in_points_of_the_head_that_is_put_first() -> None:
    values = np.array([[0.9, 0.8, 0.7, 0.1]])
    truth = np.array([[0.60, 0.65, 0.71, 0.80]])
    losses = np.array([[4.0, 3.0, 2.0, 1.0]])  # distinct values: they break no ties
    assert statistics.regret(values, losses, truth, 1)[0] == pytest.approx(20)
    assert statistics.regret(values, losses, truth, 3)[0] == pytest.approx(9)
    assert np.isnan(statistics.regret(values, losses, truth, 4)[0])


def test_of_equal_heads_the_one_with_the_lower_loss_is_first_and_then_the_earlier() -> None:
    """0.1 + 0.2 is 0.3 up to rounding. The truths are 20, 10 and 0 points below the best."""
    values = np.array([[0.1 + 0.2, 0.3, 0.3, 0.2]])
    truth = np.array([[0.5, 0.6, 0.7, 0.7]])
    for losses, points in (([3.0, 2.0, 1.0, 0.0], 0), ([3.0, 1.0, 1.0, 0.0], 10), ([1.0, 2.0, 2.0, 0.0], 20)):
        assert statistics.regret(values, np.array([losses]), truth, 1)[0] == pytest.approx(points)
    found = statistics.compare_single(values.T, np.array([[3.0, 2.0, 1.0, 0.0]]).T, truth[0], draw(4, 1, 50))
    assert found.top1_regret.value == pytest.approx(0)


def test_a_wider_interval_for_fewer_configurations_and_the_same_for_the_same_arguments() -> None:
    truth = np.linspace(0.3, 0.8, 40)
    many = compare(noisy(truth, 0.2), noisy(truth, 0.2, seed=1), draw(40, 3, 1000)).spearman
    few = compare(noisy(truth, 0.2)[::8], noisy(truth, 0.2, seed=1)[::8], draw(5, 3, 1000)).spearman
    assert few.high - few.low > many.high - many.low > 0
    assert many == compare(noisy(truth, 0.2), noisy(truth, 0.2, seed=1), draw(40, 3, 1000)).spearman
    assert many.low < many.value < many.high


def test_a_truth_of_one_value_each_is_drawn_with_its_configuration() -> None:
    truth = np.linspace(0.3, 0.8, 6)
    found = compare(noisy(truth, 1e-6), truth, draw(6, 3, 200))
    assert found.configurations == 6
    assert found.spearman == (1, pytest.approx(1), pytest.approx(1))


def test_the_gap_is_in_points_and_closes_where_it_stays_small() -> None:
    truth = noisy(np.linspace(0.5, 0.8, 16), 0.0)
    draws = draw(16, 3, 500)
    assert gap(truth - 0.03, truth, draws) == (pytest.approx(3), pytest.approx(3), pytest.approx(3))
    by_copies = [(1, truth - 0.1), (2, truth - 0.005), (4, truth - 0.02), (8, truth - 0.004), (16, truth)]
    assert closing(by_copies, truth, draws, 1.0) == Closing(8, 8, 8)
    assert closing(by_copies, truth, draws, 0.1) == Closing(16, 16, 16)
    assert closing(by_copies[:3], truth, draws, 1.0) == Closing(None, None, None)
    better = [(1, truth + 0.1), (2, truth + 0.1)]
    assert closing(better, truth, draws, 1.0) == Closing(1, 1, 1)
    assert closing(by_copies, truth, draws, 20.0) == Closing(1, 1, 1)


@pytest.mark.parametrize(
    ("in_truth", "verdict"),
    [(0.1, "yes"), (-0.1, "no: turns around"), (0.03, "in part: another size"), (0.0, "no: on one side only")],
)
def test_the_effect_of_a_value_transfers_or_not(in_truth: float, verdict: str) -> None:
    has = np.arange(16) % 2 == 0
    base = noisy(np.full(16, 0.5), 0.005)
    cached, truth = base + 0.1 * has[:, None], base + in_truth * has[:, None]
    found = effect("head.dropout", "0.5", has, cached, truth, draw(16, 3, 500))
    assert found.cached.value == pytest.approx(10, abs=1)
    assert found.truth.value == pytest.approx(100 * in_truth, abs=1)
    assert found.verdict == verdict


def test_noise_is_no_clear_effect() -> None:
    has = np.arange(16) % 2 == 0
    found = effect(
        "l2", "high", has, noisy(np.full(16, 0.5), 0.05), noisy(np.full(16, 0.5), 0.05, seed=5), draw(16, 3, 500)
    )
    assert found.verdict == "no clear effect"


@pytest.mark.parametrize("how", [compare, compare_single])
def test_a_way_compared_with_an_independent_copy_of_itself_gives_the_ceiling(how: Callable[..., Ranking]) -> None:
    """The ceiling of Spearman for normal noise is that of two independent large samples by scipy, not 1."""
    random, noise = np.random.default_rng(0), 0.15

    def trained(configurations: int) -> tuple[np.ndarray, np.ndarray]:
        truth = random.normal(0.5, 0.15, configurations)
        first, copy = (truth[:, None] + noise * random.standard_normal((configurations, 3)) for _ in range(2))
        return first, copy

    first, copy = trained(100_000)
    ceiling = stats.spearmanr(first.mean(1) if how is compare else first[:, 0], copy.mean(1)).statistic
    assert ceiling == pytest.approx(0.735 if how is compare else 0.60, abs=0.03)
    found = [how(*trained(40), draw(40, 3, 20)).spearman.value for _ in range(100)]
    assert np.mean(found) == pytest.approx(ceiling, abs=0.03)


def test_a_single_seed_agrees_less_than_the_mean_of_several() -> None:
    truth = np.linspace(0.3, 0.8, 10)
    noise, other = noisy(truth, 0.1), noisy(truth, 0.1, seed=4)
    single, mean = (how(noise, other, draw(10, 3, 500)).spearman for how in (compare_single, compare))
    assert single.value < mean.value
    assert single.low < single.value < single.high


def test_the_better_half() -> None:
    assert better_half(np.array([0.1, 0.9, 0.5, 0.7, 0.7])).tolist() == [1, 3, 4]
    assert better_half(np.array([[0.1, 0.3], [0.4, 0.1]])).tolist() == [1]


def test_the_best_of_three_among_three_is_no_choice() -> None:
    truth = np.linspace(0.3, 0.8, 3)
    found = compare(noisy(truth, 0.1), truth, draw(3, 3, 100))
    assert np.isnan(found.top3_regret.value)
    assert found.top1_regret.value >= 0


def test_means_that_differ_by_rounding_alone_are_ties() -> None:
    """Means of shares in single precision: 0.3, 0.3, 0.4 and 0.5, of which the first two differ in the last bit."""
    shares = np.array([[0.2, 0.4], [0.1, 0.5], [0.3, 0.5], [0.4, 0.6]], np.float32).astype(np.float64)
    assert len(set(shares.mean(1))) == 4
    truth = np.array([0.1, 0.2, 0.3, 0.4])
    found = compare(shares, truth, draw(4, 2, 100))
    exact = [0.3, 0.3, 0.4, 0.5]
    assert found.spearman.value == pytest.approx(stats.spearmanr(exact, truth).statistic)
    assert found.kendall.value == pytest.approx(stats.kendalltau(exact, truth).statistic)
