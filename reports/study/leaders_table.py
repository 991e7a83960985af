"""The leaders of the search as a table."""

from __future__ import annotations

from reports.config import Run
from reports.section import PageSection, Table
from reports.style import share
from search.first_trials import titled
from search.leaderboard import Leader, leaders
from search.review.describe import head_line, show, views_line


def section(run: Run) -> PageSection:
    """A row for each leader; UsageError when no trial has run to its end."""
    best = leaders(run, run.reports.leaders)
    if run.search.hypermodel is not None:
        return _hypermodels(run, best)
    rows = []
    for leader in best:
        config = leader.config
        rows.append(
            [
                titled(leader.number, leader.first),
                f"{leader.value:.4f}" if run.search.objective == "val_loss" else share(leader.value),
                share(leader.top5),
                config.features.parts or "all",
                head_line(config.head),
                "" if config.is_probe else config.schedule.kind,
                "" if config.is_probe else show(config.schedule.learning_rate),
                config.optimizer.kind if config.is_probe else f"{config.optimizer.kind}, {config.batch_size}",
                views_line(config.views),
            ]
        )
    columns = [
        "trial",
        run.search.objective.replace("_", " "),
        "top-5",
        "features",
        "head",
        "schedule",
        "peak rate",
        "optimiser, batch",
        "views",
    ]
    text = "The heads that did best on the cached features of the validation photos."
    return PageSection("leaders", "Leaders", text, tables=[Table(columns, rows, {0, 1, 2, 6})])


def _hypermodels(run: Run, best: list[Leader]) -> PageSection:
    """The leaders of a function, by the values that it drew."""
    rows = [
        [
            str(leader.number),
            f"{leader.value:.4f}" if run.search.objective == "val_loss" else share(leader.value),
            share(leader.top5),
            ", ".join(
                f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in params
            ),
        ]
        for leader, params in ((leader, leader.params.items()) for leader in best)
    ]
    columns = ["trial", run.search.objective.replace("_", " "), "top-5", "hyperparameters"]
    text = f"The models of {run.search.hypermodel} that did best on the cached features of the validation photos."
    return PageSection("leaders", "Leaders", text, tables=[Table(columns, rows, {0, 1, 2})])
