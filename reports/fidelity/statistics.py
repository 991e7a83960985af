"""The agreement of two rankings of the same configurations, with intervals, from accuracies (configurations, seeds).

The true accuracies come from trainings with other seeds than the values compared with them. So a way of training compared with
itself reaches the agreement of two independent runs (the ceiling), not 1.

Intervals are percentiles of a bootstrap (Efron 1979, "Bootstrap Methods: Another Look at the Jackknife") over configurations and
over seeds, both drawn with replacement: configurations jointly, since both sides have the same ones, seeds separately for each
side. Each resample draws one seed fewer than there are, since the bootstrap of few seeds is too narrow; with three seeds it is
still slightly too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""Accuracies as shares: (configurations, seeds), or their means (configurations,)."""

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class Draws(NamedTuple):
    """The bootstrap resamples: indices of configurations (resamples, configurations), and of seeds of the values and of the truth
    (resamples, `of_seeds` - 1, at least 1)."""

    configurations: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.int64]
    true_seeds: npt.NDArray[np.int64]
    of_seeds: int

    def means(self, values: Values) -> Values:
        """Means over the drawn seeds for the drawn configurations: (resamples, configurations)."""
        return self._means(values, self.seeds)

    def true_means(self, truth: Values) -> Values:
        """The same for true values; values without seeds (configurations,) are only resampled."""
        return self._means(truth, self.true_seeds)

    def _means(self, values: Values, seeds: npt.NDArray[np.int64]) -> Values:
        if values.ndim == 1:
            alone: Values = values[self.configurations]
            return alone
        drawn: Values = values[self.configurations[:, :, None], seeds[:, None, :]].mean(-1)
        return drawn


def draw(configurations: int, seeds: int, resamples: int, seed: int = 0) -> Draws:
    """Draws resamples, deterministic in its arguments."""
    random = np.random.default_rng(seed)
    return Draws(
        random.integers(0, configurations, (resamples, configurations)),
        random.integers(0, seeds, (resamples, max(1, seeds - 1))),
        random.integers(0, seeds, (resamples, max(1, seeds - 1))),
        seeds,
    )


class Ranking(NamedTuple):
    """The agreement of the ranking by some values with the true one.

    `spearman` and `kendall` (tau-b) are correlations. The regrets are in points of accuracy: the best true accuracy minus that of
    the configuration ranked first, or minus the best among the first three.
    """

    configurations: int
    spearman: Estimate
    kendall: Estimate
    top1_regret: Estimate
    top3_regret: Estimate


def compare(values: Values, losses: Values, truth: Values, draws: Draws) -> Ranking:
    """Compares the ranking by the mean over all seeds with the true one, both (configurations, seeds) or (configurations,).

    `losses`, with the shape of `values`, are the validation losses at the same epochs, which break ties.
    """
    one = _agreement(_mean(values)[None], _mean(losses)[None], _mean(truth)[None])
    drawn = _agreement(draws.means(values), draws.means(losses), draws.true_means(truth))
    return Ranking(len(values), *(_estimate(float(point[0]), each) for point, each in zip(one, drawn, strict=True)))


def compare_single(values: Values, losses: Values, truth: Values, draws: Draws) -> Ranking:
    """Compares the ranking by a single seed, as in a search, with the true one; averages the agreement over the seeds of `values`
    and `losses` (configurations, seeds). The truth is (configurations, seeds), of other seeds, or (configurations,)."""
    true, drawn_true, places = _mean(truth)[None], draws.true_means(truth), draws.configurations
    seeds = list(zip(values.T, losses.T, strict=True))
    points = np.mean([_agreement(value[None], loss[None], true) for value, loss in seeds], axis=0)[:, 0]
    by_seed = np.stack([_agreement(value[places], loss[places], drawn_true) for value, loss in seeds], -1)
    drawn = [np.take_along_axis(each, draws.seeds, 1).mean(1) for each in by_seed]
    return Ranking(len(values), *(_estimate(float(point), each) for point, each in zip(points, drawn, strict=True)))


def better_half(truth: Values) -> npt.NDArray[np.int64]:
    """The sorted indices of the better half of the configurations by true mean; rounded up for odd numbers."""
    mean = _mean(truth)
    return np.sort(np.argsort(-mean, kind="stable")[: (len(mean) + 1) // 2])


def spearman(values: Values, truth: Values) -> Values:
    """Spearman's rank correlation of each row (rows, configurations): (rows,); NaN if one side is constant."""
    from scipy import stats

    a, b = (stats.rankdata(side, axis=1) for side in (values, truth))
    a, b = (side - side.mean(1, keepdims=True) for side in (a, b))
    return _ratio((a * b).sum(1), np.sqrt((a**2).sum(1) * (b**2).sum(1)))


def kendall(values: Values, truth: Values) -> Values:
    """Kendall's tau-b of each row (rows, configurations): (rows,); NaN if one side is constant.

    Kendall 1945, "The Treatment of Ties in Ranking Problems".
    """
    a, b = (np.sign(side[:, :, None] - side[:, None, :]) for side in (values, truth))
    return _ratio((a * b).sum((1, 2)), np.sqrt((a**2).sum((1, 2)) * (b**2).sum((1, 2))))


def regret(values: Values, losses: Values, truth: Values, top: int) -> Values:
    """The best true accuracy of each row minus the best among its `top` first, in points: (rows,). NaN for `top` > 1 if there are
    no more than `top` configurations, since choosing three of three is no choice.

    The first are ranked like in a search (`search.ranking`): by `values`, ties by `losses`, then by position.
    """
    if top > 1 and values.shape[1] <= top:
        return np.full(len(values), np.nan)
    # Rounding: equal shares of the photos that were summed in a different order are ties.
    first = np.lexsort((losses, -values.round(6)), axis=1)[:, :top]
    lost: Values = 100 * (truth.max(1) - np.take_along_axis(truth, first, 1).max(1))
    return lost


def gap(values: Values, truth: Values, draws: Draws) -> Estimate:
    """The truth minus the values in points of accuracy, averaged over configurations."""
    drawn = 100 * (draws.true_means(truth) - draws.means(values)).mean(1)
    return _estimate(100 * float((_mean(truth) - _mean(values)).mean()), drawn)


class Closing(NamedTuple):
    """The smallest number of copies from which on the views are worse than fresh ones by at most the tolerance, with its
    interval; None if no measured number suffices."""

    copies: int | None
    low: int | None
    high: int | None


def closing(by_copies: Sequence[tuple[int, Values]], truth: Values, draws: Draws, tolerance: float) -> Closing:
    """The number of copies at which the gap to the truth closes to `tolerance` points; `by_copies` is sorted by copies."""
    counts = [copies for copies, _ in by_copies]
    point = [100 * float((_mean(truth) - _mean(values)).mean()) for _, values in by_copies]
    drawn = np.stack([100 * (draws.true_means(truth) - draws.means(values)).mean(1) for _, values in by_copies], 1)

    def first(gaps: npt.NDArray[np.float64]) -> float:
        open_ = np.flatnonzero(gaps > tolerance)
        place = int(open_[-1]) + 1 if len(open_) else 0
        return counts[place] if place < len(counts) else np.inf

    closed = [first(gaps) for gaps in drawn]
    low, high = np.quantile(closed, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    return Closing(*(None if np.isinf(each) else int(each) for each in (first(np.asarray(point)), low, high)))


class Effect(NamedTuple):
    """The effect of a hyperparameter's value in points of accuracy: the mean of the `configurations` that have it minus that of
    the others, on cached views and in truth, and the difference of the two."""

    parameter: str
    value: str
    configurations: int
    cached: Estimate
    truth: Estimate
    difference: Estimate

    @property
    def verdict(self) -> str:
        """Whether the effect transfers, in a few words."""
        cached, truth, differs = (each.low > 0 or each.high < 0 for each in (self.cached, self.truth, self.difference))
        if not (cached or truth):
            return "no clear effect"
        if cached and truth and self.cached.value * self.truth.value < 0:
            return "no: turns around"
        if cached and truth:
            return "in part: another size" if differs else "yes"
        return "no: on one side only" if differs else "cannot be told"


def effect(
    parameter: str, value: str, has: npt.NDArray[np.bool_], cached: Values, truth: Values, draws: Draws
) -> Effect:
    """The effect of a value; `has` (configurations,) marks the configurations that have it, which must be some but not all."""
    one = [100 * float(_mean(side)[has].mean() - _mean(side)[~has].mean()) for side in (cached, truth)]
    drawn_has = has[draws.configurations]
    usable = drawn_has.any(1) & (~drawn_has).any(1)
    drawn = []
    for means in (draws.means(cached)[usable], draws.true_means(truth)[usable]):
        kept = drawn_has[usable]
        with_it = (means * kept).sum(1) / kept.sum(1)
        drawn.append(100 * (with_it - (means * ~kept).sum(1) / (~kept).sum(1)))
    return Effect(
        parameter,
        value,
        int(has.sum()),
        _estimate(one[0], drawn[0]),
        _estimate(one[1], drawn[1]),
        _estimate(one[0] - one[1], drawn[0] - drawn[1]),
    )


def _agreement(values: Values, losses: Values, truth: Values) -> list[Values]:
    """The statistics of a Ranking, in its order, for each row (rows, configurations): (rows,) each.

    Accuracies that are equal to six decimals are ties, as in a search: means in single precision differ by rounding.
    """
    values, truth = values.round(6), truth.round(6)
    regrets = (regret(values, losses, truth, top) for top in (1, 3))
    return [spearman(values, truth), kendall(values, truth), *regrets]


def _mean(values: Values) -> Values:
    return values if values.ndim == 1 else values.mean(1)


def _ratio(numerator: Values, denominator: Values) -> Values:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _estimate(value: float, drawn: Values) -> Estimate:
    sound = drawn[np.isfinite(drawn)]
    if not len(sound):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(sound, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))
