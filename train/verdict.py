"""The verdict on a promoted network: its test accuracy compared with the linear probe and the nearest neighbours."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, computed_field

from features.cache.feature_cache import cache_for
from features.runtime.errors import HeadhuntError
from search.confirm.ranking import confirmed_first
from search.first_trials import TITLES
from search.leaderboard import Leader, OtherObjectiveError, check_cache
from search.ranking import OPTIMISTIC
from train.baselines.measure import BASELINES, baseline_test_labels
from train.config import TrainRun
from train.evaluate import wilson_interval
from train.promotion.artifact import Promotion, damaged_promotions, find_promotions
from train.promotion.predictions import read_predictions

COMPARED = ("linear_probe", "nearest_neighbours")
"""The baselines of a verdict, the linear probe first."""


class Difference(BaseModel):
    """The network's accuracy minus a baseline's on the same test photos: a share with its 95 % interval.

    `accuracy` is the baseline's own.
    """

    model_config = ConfigDict(frozen=True)

    accuracy: float
    difference: float
    low: float
    high: float


class Verdict(BaseModel):
    """A promoted network's result on the test photos; `accuracy` is a share with its 95 % interval (Wilson).

    If there is no accuracy, `missing` says why.
    """

    model_config = ConfigDict(frozen=True)

    title: str = ""
    trial: int | None = None
    is_probe: bool = False
    """Whether the network is the linear probe itself, on the frozen backbone."""
    is_first: bool = False
    """Whether its trial ranks before others of the study."""
    photos: int = 0
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    against: dict[str, Difference] | None = None
    missing: str = ""

    @property
    def compared(self) -> tuple[str, ...]:
        """The baselines that the network is compared with: the probe not with itself."""
        return COMPARED[1:] if self.is_probe else COMPARED

    @computed_field  # type: ignore[prop-decorator]
    @property
    def text(self) -> str:
        """The verdict as one line of text."""
        if self.accuracy is None or self.low is None or self.high is None:
            return f"No verdict: {self.missing}"
        told = [
            f"{self.title[:1].upper()}{self.title[1:]}: {_share(self.accuracy)} of {self.photos} test photos (95 % interval "
            f"{_share(self.low)} to {_share(self.high)})."
        ]
        found = self.against or {}
        if self.is_probe:
            told.append(
                "It is the linear probe itself: no head that was trained is better."
                if self.is_first
                else "It is the linear probe itself."
            )
        for name in self.compared:
            if name in found:
                told.append(f"{_compared(found[name], BASELINES[name].title)}.")
        probe = None if self.is_probe else found.get("linear_probe")
        if probe is not None and probe.high < 0:
            told.append("Use the probe, or search more widely.")
        elif probe is not None and probe.low <= 0:
            told.append(
                "These photos do not show that search and fine-tuning gained anything over the probe, the simpler model."
            )
        if lacking := [f"the {BASELINES[name].title}" for name in self.compared if name not in found]:
            told.append(f"It was not compared with {' and '.join(lacking)}: run `headhunt train baselines`.")
        return " ".join(told)


class Counts(NamedTuple):
    """Numbers of photos that both models classify correctly, only the first, only the second, and neither."""

    both: int
    first: int
    second: int
    neither: int


def best_verdict(run: TrainRun, among: Collection[Path] | None = None) -> Verdict:
    """The verdict on the best promotion, which `train export` exports by default, or on the best of those in these folders."""
    found = [each for each in find_promotions(run) if among is None or each.folder in among]
    if found:
        return verdict_of(run, found[0])
    return Verdict(missing=" ".join(damaged_promotions(run)) or "nothing is promoted yet.")


def verdict_of(run: TrainRun, promotion: Promotion) -> Verdict:
    """The verdict on a promotion, from the stored predictions of it and the baselines.

    There is none if the study was searched by another objective, or its trial was trained on another cache than the
    configuration's: the baselines would be those of other photos or features.
    """
    try:
        ranked = _ranked(run)
    except OtherObjectiveError as error:
        return Verdict(title=promotion.title, trial=promotion.trial, missing=str(error))
    leader = next((each for each in ranked if each.number == promotion.trial), None)
    first = leader and leader.first
    alike = [each for each in find_promotions(run) if each.trial == promotion.trial]
    own = promotion.title if len(alike) > 1 else f"trial {promotion.trial}"
    title = f"{own}{f' ({TITLES[first]})' if first else ''}, {promotion.stage}"
    is_probe = first == "probe" and promotion.is_frozen
    if promotion.tuned.test is None:
        accuracy = promotion.tuned.val.accuracy
        missing = (
            "the test photos were not evaluated because `train.evaluate_test` is false. "
            f"{title[:1].upper()}{title[1:]}: {_share(accuracy)} of the validation photos, {OPTIMISTIC}."
        )
        return Verdict(title=title, trial=promotion.trial, is_probe=is_probe, missing=missing)
    try:
        predictions = read_predictions(run, promotion, "test")
        if leader is not None:
            check_cache(run, leader)
        cache = cache_for(run)
        others = {name: baseline_test_labels(run, cache, name) for name in COMPARED}
    except HeadhuntError as error:
        return Verdict(title=title, trial=promotion.trial, is_probe=is_probe, missing=str(error))
    labels, right = predictions.labels, predictions.right
    against = {}
    for name, named in others.items():
        if named is not None and len(named) == len(labels):
            theirs = np.asarray(named) == labels
            difference, low, high = paired_interval(right, theirs)
            against[name] = Difference(accuracy=float(theirs.mean()), difference=difference, low=low, high=high)
    accuracy = float(right.mean())
    low, high = wilson_interval(accuracy, len(labels))
    return Verdict(
        title=title,
        trial=promotion.trial,
        is_probe=is_probe,
        is_first=len(ranked) > 1 and ranked[0] is leader,
        photos=len(labels),
        accuracy=accuracy,
        low=low,
        high=high,
        against=against,
    )


def _ranked(run: TrainRun) -> list[Leader]:
    """The study's trials, best first; none if it cannot be read."""
    try:
        return confirmed_first(run)[0]
    except OtherObjectiveError:
        raise
    except HeadhuntError:
        return []


def paired_interval(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """The share of True in `first` (n,) minus that in `second` (n,), on the same photos, with its 95 % interval.

    Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data" (1998),
    method 10: combines the Wilson intervals of both shares, using the correlation of the pairs. It stays within -1 and 1, and
    is not a single point when both models are right on the same photos.
    """
    count = len(first)
    pairs = Counts(
        int((first & second).sum()),
        int((first & ~second).sum()),
        int((~first & second).sum()),
        int((~first & ~second).sum()),
    )
    share, other = first.mean(), second.mean()
    (low, high), (other_low, other_high) = wilson_interval(share, count), wilson_interval(other, count)
    correlation = _correlation(pairs)

    def joined(one: float, two: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * two + two**2))

    difference = float(share - other)
    return (
        difference,
        difference - joined(share - low, other_high - other),
        difference + joined(high - share, other - other_low),
    )


def _correlation(pairs: Counts) -> float:
    """The correlation of the pairs, with Newcombe's continuity correction."""
    count = sum(pairs)
    margins = (
        (pairs.both + pairs.first)
        * (pairs.second + pairs.neither)
        * (pairs.both + pairs.second)
        * (pairs.first + pairs.neither)
    )
    if margins == 0:
        return 0.0
    surplus: float = pairs.both * pairs.neither - pairs.first * pairs.second
    if surplus > 0:
        surplus = max(surplus - count / 2, 0.0)
    return surplus / math.sqrt(margins)


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _compared(found: Difference, title: str) -> str:
    word = "Better than" if found.low > 0 else "Worse than" if found.high < 0 else "Not clearly different from"
    return (
        f"{word} the {title} ({_share(found.accuracy)}): {100 * found.difference:+z.1f} points ({100 * found.low:+z.1f} to "
        f"{100 * found.high:+z.1f})"
    )
