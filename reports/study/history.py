"""The search, trial by trial: every value and the best so far."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from features.runtime.log import counted
from reports.config import Run
from reports.section import PageSection
from reports.style import SHARES, figure, whole_ticks
from search.leaderboard import load_study
from search.metric import Metric, best_of, is_share

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go


class History(NamedTuple):
    """Trials with a value, in order: numbers, values of the objective, states, and the best completed value so far.

    `counts` is the number of trials in each state, including those without a value (failed, running).
    """

    objective: Metric
    numbers: list[int]
    values: list[float]
    states: list[str]
    best: list[float | None]
    counts: dict[str, int]


def collect(study: optuna.Study, objective: Metric) -> History:
    """The history of a study."""
    every = study.get_trials(deepcopy=False)
    trials = [trial for trial in every if trial.value is not None]
    best: list[float | None] = []
    for trial in trials:
        known = [
            value
            for value in (best[-1] if best else None, trial.value if trial.state.name == "COMPLETE" else None)
            if value is not None
        ]
        best.append(best_of(objective, known) if known else None)
    return History(
        objective,
        [trial.number for trial in trials],
        [float(trial.value or 0.0) for trial in trials],
        [trial.state.name.lower() for trial in trials],
        best,
        dict(Counter("failed" if trial.state.name == "FAIL" else trial.state.name.lower() for trial in every)),
    )


def draw(history: History) -> go.Figure:
    """A point for each trial, a line for the best so far."""
    drawn = figure("trial", history.objective.replace("_", " "), **(SHARES if is_share(history.objective) else {}))
    drawn.update_xaxes(whole_ticks(history.numbers))
    for state, symbol in (("complete", "circle"), ("pruned", "x-thin-open")):
        rows = [n for n, found in enumerate(history.states) if found == state]
        drawn.add_scatter(
            x=[history.numbers[n] for n in rows],
            y=[history.values[n] for n in rows],
            mode="markers",
            name=state if state == "complete" else "pruned (last value)",
            marker={"symbol": symbol, "size": 8},
            cliponaxis=False,
        )
    drawn.add_scatter(
        x=history.numbers, y=history.best, mode="lines", name="best so far", line={"shape": "hv", "width": 2}
    )
    return drawn


def section(run: Run) -> PageSection:
    """The search, trial by trial; UsageError if there is no study."""
    found = collect(load_study(run), run.search.objective)
    counts = ", ".join(f"{count} {state}" for state, count in found.counts.items())
    text = f"{counted(sum(found.counts.values()), 'trial')}: {counts}."
    return PageSection("history", "Search history", text, {"history": draw(found)})
