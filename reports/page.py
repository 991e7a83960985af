"""The sections of the page, built from artifacts on disk; a missing one is left out, with the command that creates it."""

from __future__ import annotations

from collections.abc import Callable

from reports import configuration, top5
from reports.config import Run
from reports.dataset import caches
from reports.dataset import section as dataset_section
from reports.errors import calibration, class_scores, confusions, mistakes
from reports.fidelity import section as fidelity_section
from reports.models import histories, promotions
from reports.section import PageSection, reason_of
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
from search.top5 import is_shown

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
    "confusions": ("Confusions", confusions.section),
    "mistakes": ("Mistakes", mistakes.section),
    "classes": ("Best and worst classes", class_scores.section),
    "calibration": ("Calibration", calibration.section),
    "dataset": ("Data set", dataset_section.section),
    "cache": ("Feature cache", caches.section),
    "configuration": ("Configuration", configuration.section),
}
"""Every section in page order."""


def make_section(run: Run, name: str) -> PageSection:
    """One section; LeftOutError or HeadhuntError if it has nothing to show."""
    section = SECTIONS[name][1](run)
    return section if is_shown(run) else top5.without(section)


def collect_sections(run: Run) -> tuple[list[PageSection], dict[str, str]]:
    """The sections that can be shown, and the reasons for leaving out the others, by name."""
    sections, left_out = [], {}
    for name in SECTIONS:
        try:
            sections.append(make_section(run, name))
        except Exception as error:  # the other sections are still shown
            left_out[name] = reason_of(error)
    return sections, left_out
