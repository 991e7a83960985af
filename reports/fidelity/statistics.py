"""How two rankings of the same configurations agree, with intervals; all numbers come from accuracies (configurations, seeds).

Intervals are percentiles of a bootstrap (Efron 1979, "Bootstrap Methods: Another Look at the Jackknife") over configurations and
over seeds, both drawn with replacement; what is compared is drawn together, as it is paired by configuration and by seed. One
seed fewer is drawn than there are, since a bootstrap of so few is too narrow; with three it still is, somewhat.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""Accuracies as shares: (configurations, seeds), or (configurations,) of means."""

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class Draws(NamedTuple):
    """Which configurations (resamples, configurations) and seeds (resamples, fewer) each resample of the bootstrap holds, of how
    many `of_seeds`."""

    configurations: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.int64]
    of_seeds: int

    def means(self, values: Values) -> Values:
        """Means over the drawn seeds, of the drawn configurations: (resamples, configurations). Values without seeds
        (configurations,) are drawn as they are."""
        if values.ndim == 1:
            alone: Values = values[self.configurations]
            return alone
        drawn: Values = values[self.configurations[:, :, None], self.seeds[:, None, :]].mean(-1)
        return drawn


def draw(configurations: int, seeds: int, resamples: int, seed: int = 0) -> Draws:
    """The same resamples for the same arguments."""
    random = np.random.default_rng(seed)
    return Draws(
        random.integers(0, configurations, (resamples, configurations)),
        random.integers(0, seeds, (resamples, max(1, seeds - 1))),
        seeds,
    )


class Ranking(NamedTuple):
    """How the ranking by some values agrees with the true one.

    `spearman` and `kendall` (tau-b) are correlations. The regrets are in points of accuracy: the best truth minus the truth of
    the best by those values, or minus the best truth among their first three.
    """

    configurations: int
    spearman: Estimate
    kendall: Estimate
    top1_regret: Estimate
    top3_regret: Estimate


def compare(values: Values, truth: Values, draws: Draws) -> Ranking:
    """Compares the ranking by the mean of all seeds with the true one, both (configurations, seeds) or (configurations,)."""
    mean, true = _mean(values), _mean(truth)
    one, drawn = (mean[None], true[None]), (draws.means(values), draws.means(truth))
    found = [_estimate(float(measure(*one)[0]), measure(*drawn)) for measure in MEASURES]
    return Ranking(len(mean), *found)


def compare_single(values: Values, truth: Values, draws: Draws) -> Ranking:
    """Compares the ranking by a single seed, as a search sees each trial, with the true one by the mean of the other seeds.

    Both are (configurations, seeds), of at least two seeds; or the truth is (configurations,), of other trainings. A seed is
    never compared with a truth that it is part of: what it has by chance would be in both. The mean over the seeds.
    """
    every = list(range(values.shape[1]))
    pairs = [
        (values[:, seed], truth if truth.ndim == 1 else truth[:, [other for other in every if other != seed]].mean(1))
        for seed in every
    ]
    drawn = draws.configurations
    found = []
    for measure in MEASURES:
        point = np.mean([measure(a[None], b[None])[0] for a, b in pairs])
        by_seed = np.stack([measure(a[drawn], b[drawn]) for a, b in pairs], 1)
        chosen = np.take_along_axis(by_seed, draws.seeds, 1)
        found.append(_estimate(float(point), chosen.mean(1)))
    return Ranking(len(values), *found)


def spearman(values: Values, truth: Values) -> Values:
    """Spearman's rank correlation of each row (rows, configurations): (rows,); nan where one side is all the same."""
    from scipy import stats

    a, b = (stats.rankdata(side, axis=1) for side in (values, truth))
    a, b = (side - side.mean(1, keepdims=True) for side in (a, b))
    return _ratio((a * b).sum(1), np.sqrt((a**2).sum(1) * (b**2).sum(1)))


def kendall(values: Values, truth: Values) -> Values:
    """Kendall's tau-b of each row (rows, configurations): (rows,); nan where one side is all the same.

    Kendall 1945, "The Treatment of Ties in Ranking Problems".
    """
    a, b = (np.sign(side[:, :, None] - side[:, None, :]) for side in (values, truth))
    return _ratio((a * b).sum((1, 2)), np.sqrt((a**2).sum((1, 2)) * (b**2).sum((1, 2))))


def regret(values: Values, truth: Values, top: int) -> Values:
    """Points of accuracy between the best truth of each row and the best among the `top` first by `values`: (rows,); nan where
    there are no more than that, three of three being no choice."""
    if top > 1 and values.shape[1] <= top:
        return np.full(len(values), np.nan)
    first = np.argsort(-values, axis=1, kind="stable")[:, :top]
    lost: Values = 100 * (truth.max(1) - np.take_along_axis(truth, first, 1).max(1))
    return lost


def gap(values: Values, truth: Values, draws: Draws) -> Estimate:
    """By how many points of accuracy the truth is above the values, in the mean over configurations."""
    drawn = 100 * (draws.means(truth) - draws.means(values)).mean(1)
    return _estimate(100 * float((_mean(truth) - _mean(values)).mean()), drawn)


class Closing(NamedTuple):
    """The smallest number of copies from which on the views are no worse than fresh ones by more than the tolerance, with its
    interval; None where no measured number is."""

    copies: int | None
    low: int | None
    high: int | None


def closing(by_copies: Sequence[tuple[int, Values]], truth: Values, draws: Draws, tolerance: float) -> Closing:
    """Where the gap to the truth closes, to `tolerance` points; `by_copies` rises in its numbers."""
    counts = [copies for copies, _ in by_copies]
    point = [100 * float((_mean(truth) - _mean(values)).mean()) for _, values in by_copies]
    drawn = np.stack([100 * (draws.means(truth) - draws.means(values)).mean(1) for _, values in by_copies], 1)

    def first(gaps: npt.NDArray[np.float64]) -> float:
        open_ = np.flatnonzero(gaps > tolerance)
        place = int(open_[-1]) + 1 if len(open_) else 0
        return counts[place] if place < len(counts) else np.inf

    closed = [first(gaps) for gaps in drawn]
    low, high = np.quantile(closed, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    return Closing(*(None if np.isinf(each) else int(each) for each in (first(np.asarray(point)), low, high)))


class Effect(NamedTuple):
    """What a hyperparameter's value is worth, in points of accuracy: the mean of the `configurations` that have it minus that of
    the others, by the cached ranking's values and in truth, and the difference of the two."""

    parameter: str
    value: str
    configurations: int
    cached: Estimate
    truth: Estimate
    difference: Estimate

    @property
    def verdict(self) -> str:
        """Whether the effect transfers, in a word or two."""
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
    """The effect of having a value, of which `has` (configurations,) says who does; some have it and some do not."""
    one = [100 * float(_mean(side)[has].mean() - _mean(side)[~has].mean()) for side in (cached, truth)]
    drawn_has = has[draws.configurations]
    usable = drawn_has.any(1) & (~drawn_has).any(1)
    drawn = []
    for side in (cached, truth):
        means = draws.means(side)[usable]
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


MEASURES = (spearman, kendall, partial(regret, top=1), partial(regret, top=3))
"""What a Ranking says, in its order."""


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
