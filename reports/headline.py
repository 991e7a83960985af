"""The first screen: the best model, its accuracy on test photos against simpler ones, and whether the data are sound."""

from __future__ import annotations

from features.dataset.index import load_index
from features.runtime.errors import HeadhuntError
from reports.config import Run
from reports.dataset import findings
from reports.dataset import section as dataset_section
from reports.section import reason_of
from reports.style import share
from search.confirm.ranking import find_confirmation
from search.leaderboard import leaders
from search.metric import is_share
from search.ranking import OPTIMISTIC
from train.evaluate import wilson_interval
from train.promotion.artifact import Promotion, find_promotions
from train.verdict import Verdict, best_verdict, verdict_of

Tile = tuple[str, str]
"""A number as text, and what it means."""


def headline(run: Run) -> list[Tile]:
    """The main numbers of the best promotion, or else of the best head so far; empty without an index."""
    try:
        index = load_index(run)
    except HeadhuntError:
        return []
    try:
        best = next(iter(find_promotions(run)), None)
        tiles = _searched(run) if best is None else _promoted(run, best)
        facts = dataset_section.collect(index)
    except Exception as error:  # the sections are still shown
        return [("–", reason_of(error))]
    tiles.append((share(facts.most_frequent), f"test, always predicting the most frequent of {facts.classes} classes"))
    return tiles


def verdict(run: Run) -> Verdict:
    """The verdict on the best promotion; on an error, a verdict with the reason."""
    try:
        return best_verdict(run)
    except Exception as error:
        return Verdict(missing=reason_of(error))


def _promoted(run: Run, best: Promotion) -> list[Tile]:
    """The exported network, the linear probe and the frozen head on the same test photos. Without a verdict there are no
    intervals, since the photos may have changed."""
    test, frozen = best.tuned.test, best.frozen.test
    if test is None:
        what = f"validation, {best.title}, {best.stage}, {OPTIMISTIC}; not evaluated on test photos"
        return [(share(best.tuned.val.accuracy), what)]
    accuracy, found = test.accuracy, verdict_of(run, best)
    of = "" if found.missing else f" of {found.photos:,} photos"
    title = found.title if found.is_probe else f"{best.title}, {best.stage}"
    tiles = [(share(accuracy), f"test, {title}{_measured(accuracy, found)}{of}")]
    if found.is_probe:
        return tiles
    tiles.append(_probe(found))
    if not best.is_frozen and frozen is not None:
        before = frozen.accuracy
        gained = f"fine-tuning changed it by {100 * (accuracy - before):+z.1f} points"
        tiles.append((share(before), f"test, frozen head{_measured(before, found)}; {gained}"))
    elif best.is_frozen:
        tiles.append(
            (share(accuracy), "test, frozen head: this is the model, since no epoch of fine-tuning was better")
        )
    return tiles


def _probe(found: Verdict) -> Tile:
    """The linear probe, for comparison with the promoted network."""
    probe = (found.against or {}).get("linear_probe")
    if found.missing:
        return "–", "test, linear probe: unknown, for the reason above"
    if probe is None:
        return "–", "test, linear probe: not measured on these photos; run headhunt train baselines"
    return share(probe.accuracy), f"test, linear probe: {_interval(probe.accuracy, found.photos)}"


def _measured(accuracy: float, found: Verdict) -> str:
    """The interval of one of the promotion's accuracies, or when it was measured if its photos are unknown."""
    return ", when it was promoted" if found.missing else f": {_interval(accuracy, found.photos)}"


def _interval(accuracy: float, photos: int) -> str:
    low, high = wilson_interval(accuracy, photos)
    return f"95 % interval {share(low)} to {share(high)}"


def _searched(run: Run) -> list[Tile]:
    """The best confirmed head if there is one, else the search's best head."""
    try:
        ranked = leaders(run)
    except HeadhuntError:
        return []
    if not is_share(run.search.objective):
        return []
    best, value, how = ranked[0], ranked[0].value, "best head"
    confirmation = find_confirmation(run)
    if confirmation is not None and confirmation.confirmed[0].mean is not None:
        first = confirmation.confirmed[0]
        best = next(leader for leader in ranked if leader.number == first.number)
        mean = "the same with every seed" if first.first == "probe" else f"mean of {len(first.seeds)} seeds"
        value, how = confirmation.confirmed[0].mean, f"{mean}, best head"
    above = f"{100 * (value - ranked[-1].value):z.1f} points above the worst completed trial"
    return [(share(value), f"validation, {how} (trial {best.number}), {above}; {OPTIMISTIC}")]


def data_line(run: Run) -> str:
    """What may be wrong with the data, in sentences."""
    try:
        return findings.load(run).text
    except Exception as error:
        return f"could not be checked: {reason_of(error)}"
