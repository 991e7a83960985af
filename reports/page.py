"""The sections of the page, each from what is on disk; what is missing is left out with the command that makes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from features.dataset import load_index
from features.errors import HeadhuntError, UsageError
from reports.config import Run
from reports.dataset import caches
from reports.dataset import section as dataset_section
from reports.errors import calibration, class_scores, confusions, mistakes
from reports.fidelity import section as fidelity_section
from reports.models import histories, promotions
from reports.section import LeftOutError, PageSection
from reports.study import (
    confirmed,
    first_trials,
    history,
    importance,
    leader_curves,
    leaders_table,
    parameters,
    pruning,
    side_by_side,
    workers,
)
from reports.style import share
from search.confirm.ranking import find_confirmation
from search.leaderboard import Leader, leaders
from train.promotion.artifact import find_promotions
from train.verdict import best_verdict

SECTIONS: dict[str, tuple[str, Callable[[Run], PageSection]]] = {
    "promotions": ("Promoted models", promotions.section),
    "fidelity": ("Fidelity", fidelity_section.section),
    "histories": ("Earlier runs", histories.section),
    "first": ("First trials and the winner", first_trials.section),
    "leaders": ("Leaders", leaders_table.section),
    "confirmed": ("Confirmed leaders", confirmed.section),
    "studies": ("Studies side by side", side_by_side.section),
    "history": ("Search history", history.section),
    "pruning": ("Pruning", pruning.section),
    "importance": ("Parameter importance", importance.section),
    "parameters": ("Hyperparameters", parameters.section),
    "rates": ("Learning rates", leader_curves.rates_section),
    "curves": ("Learning curves", leader_curves.curves_section),
    "workers": ("Workers", workers.section),
    "confusions": ("Worst confusions", confusions.section),
    "mistakes": ("Mistakes", mistakes.section),
    "classes": ("Best and worst classes", class_scores.section),
    "calibration": ("Calibration", calibration.section),
    "dataset": ("Data set", dataset_section.section),
    "cache": ("Feature cache", caches.section),
}
"""Every section in its order on the page."""


def collect_sections(run: Run) -> tuple[list[PageSection], dict[str, str]]:
    """The sections that there is something for, and why the others are left out, by name."""
    sections, left_out = [], {}
    for name, (_, make) in SECTIONS.items():
        try:
            sections.append(make(run))
        except (LeftOutError, HeadhuntError) as reason:
            left_out[name] = str(reason)
    return sections, left_out


def _best_head(run: Run, ranked: Sequence[Leader]) -> tuple[str, str]:
    """The confirmed best where there is one, else that of the search."""
    best, value, how = ranked[0], ranked[0].value, "best head"
    confirmation = find_confirmation(run)
    if confirmation is not None and confirmation.confirmed[0].mean is not None:
        first = confirmation.confirmed[0]
        best = next(leader for leader in ranked if leader.number == first.number)
        value, how = confirmation.confirmed[0].mean, f"mean of {len(first.seeds)} seeds, best head"
    spread = 100 * (value - ranked[-1].value)
    above = f"{spread:.1f} points above the worst that ran to its end"
    return share(value), f"validation, {how} (trial {best.number}), {above}"


def headline(run: Run) -> list[tuple[str, str]]:
    """The main numbers as (figure, what it is); empty before a search."""
    numbers: list[tuple[str, str]] = []
    try:
        ranked = leaders(run)
        facts = dataset_section.collect(load_index(run))
    except UsageError:
        return numbers
    if run.search.objective != "val_loss":
        numbers.append(_best_head(run, ranked))
    for best in find_promotions(run)[:1]:
        frozen, tuned = best.metrics.frozen, best.metrics.tuned
        gained = 100 * (tuned["val"]["accuracy"] - frozen["val"]["accuracy"])
        gain = "no epoch of fine-tuning was better" if best.is_frozen else f"{gained:+.1f} points over frozen"
        numbers.append((share(tuned["val"]["accuracy"]), f"validation, {best.stage} trial {best.trial}: {gain}"))
        if "test" in tuned:
            test = tuned["test"]
            numbers.append((share(test["accuracy"]), f"test, top-1; top-5 {share(test['top5_accuracy'])}"))
    numbers.append((share(facts.most_frequent), f"always naming the most frequent of {facts.classes} classes"))
    return numbers


def verdict(run: Run) -> str:
    """The verdict on the best promotion; empty where nothing is promoted."""
    found = best_verdict(run)
    return "" if found.trial is None else found.text
