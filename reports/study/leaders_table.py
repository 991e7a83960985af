"""The leaders of the search as a table."""

from __future__ import annotations

from features.backbones.table import pooling
from reports.config import Run
from reports.section import PageSection, Table
from reports.study.ranked import Ranked, ranked
from reports.style import share
from search.first_trials import label_of
from search.leaderboard import Leader
from search.metric import is_share
from search.ranking import OPTIMISTIC
from search.review.describe import head_line, parts_line, show, views_line

WORDS = {"trial", "features", "head", "schedule, peak rate", "optimiser, batch", "views"}
"""Columns of text."""


def section(run: Run) -> PageSection:
    """A row for each leader; UsageError if there are no completed trials."""
    best = ranked(run)
    if run.search.hypermodel is not None:
        return _hypermodels(run, best)
    rows = []
    for leader in best.leaders:
        config = leader.config
        rows.append(
            [
                label_of(leader.number, leader.first),
                *_values(run, best, leader),
                share(leader.top5),
                parts_line(config.features.parts, run.features),
                head_line(config.head),
                "" if config.is_probe else f"{config.schedule.kind}, {show(config.schedule.learning_rate)}",
                config.optimizer.kind if config.is_probe else f"{config.optimizer.kind}, {config.batch_size}",
                views_line(config.views),
            ]
        )
    columns = [
        "trial",
        *_headings(run, best),
        "top-5",
        "features",
        "head",
        "schedule, peak rate",
        "optimiser, batch",
        "views",
    ]
    text = f"The best heads on the cached features of the validation photos.{_told(best)}"
    if any(leader.config.features.parts is not None for leader in best.leaders):
        text += f" All features are {pooling(run.features)}."
    numeric = {place for place, name in enumerate(columns) if name not in WORDS}
    return PageSection("leaders", "Leaders", text, tables=[Table(columns, rows, numeric)])


def _headings(run: Run, best: Ranked) -> list[str]:
    """Headings of the columns of `_values`."""
    return [run.search.objective.replace("_", " "), *([f"mean of {best.seeds} seeds"] if best.confirmation else [])]


def _values(run: Run, best: Ranked, leader: Leader) -> list[str]:
    """A leader's value in the search, and its mean over seeds if leaders are confirmed."""
    show = share if is_share(run.search.objective) else "{:.4f}".format
    if best.confirmation is None:
        return [show(leader.value)]
    found = best.confirmation.of(leader.number)
    return [show(leader.value), "" if found is None or found.mean is None else show(found.mean)]


def _told(best: Ranked) -> str:
    return f"{best.order} Their values are {OPTIMISTIC}."


def _hypermodels(run: Run, best: Ranked) -> PageSection:
    """The leaders of a hypermodel, with the values that it drew."""
    rows = [
        [
            str(leader.number),
            *_values(run, best, leader),
            share(leader.top5),
            ", ".join(
                f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in params
            ),
        ]
        for leader, params in ((leader, leader.params.items()) for leader in best.leaders)
    ]
    columns = ["trial", *_headings(run, best), "top-5", "hyperparameters"]
    text = f"The best models of {run.search.hypermodel} on the cached features of the validation photos.{_told(best)}"
    return PageSection("leaders", "Leaders", text, tables=[Table(columns, rows, set(range(len(columns) - 1)))])
