"""When trials were pruned, and the values of all trials epoch by epoch."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from features.runtime.log import counted
from reports.config import Run
from reports.section import LeftOutError, PageSection
from reports.style import COLOURS, SHARES, figure, share, whole_ticks
from search.first_trials import name_of
from search.leaderboard import load_study
from search.metric import Metric, is_share

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

LINES = 300
"""Maximum number of trials whose values are drawn."""

STATES = {"complete": COLOURS[0], "running": COLOURS[8], "failed": COLOURS[3], "pruned": COLOURS[1]}
"""The colour of each state, in drawing order."""


class TrialValues(NamedTuple):
    """A trial's values of the objective: (epoch, value) in order, with epochs counted from 1. A trial that is solved instead of
    trained has a single value, at the last epoch."""

    number: int
    state: str
    values: list[tuple[int, float]]
    is_solved: bool = False


class Pruning(NamedTuple):
    """The number of trials pruned after each epoch, where any were, and the values of every trial that has any.

    `saved` is the share of epochs saved by pruning: the epochs that pruned trials did not train, out of all epochs that completed
    and pruned trials would have trained without it. Solved trials are not counted.
    """

    after: dict[int, int]
    trials: list[TrialValues]
    saved: float


def collect(study: optuna.Study, epochs: int) -> Pruning:
    """The values and prunings of a study whose trials train for at most `epochs` epochs."""
    trials = []
    for trial in study.get_trials(deepcopy=False):
        values = sorted((epoch, value) for epoch, value in trial.intermediate_values.items() if math.isfinite(value))
        if values:
            state = "failed" if trial.state.name == "FAIL" else trial.state.name.lower()
            trials.append(TrialValues(trial.number, state, values, name_of(trial) == "probe"))
    trained = [trial for trial in trials if not trial.is_solved]
    lengths = {state: [trial.values[-1][0] for trial in trained if trial.state == state] for state in STATES}
    not_trained = sum(epochs - length for length in lengths["pruned"])
    epochs_trained = sum(lengths["pruned"]) + sum(lengths["complete"])
    saved = not_trained / (epochs_trained + not_trained) if epochs_trained else 0.0
    return Pruning(dict(sorted(Counter(lengths["pruned"]).items())), trials, saved)


def thinned(trials: list[TrialValues]) -> list[TrialValues]:
    """At most LINES of the trials, evenly spaced over the search."""
    return [trials[place] for place in np.unique(np.linspace(0, len(trials) - 1, LINES).astype(int))]


def draw_pruned(pruning: Pruning) -> go.Figure:
    """A bar for each epoch after which trials were pruned."""
    drawn = figure("after epoch", "trials pruned", rangemode="tozero")
    drawn.add_bar(
        x=[str(epoch) for epoch in pruning.after],
        y=list(pruning.after.values()),
        texttemplate="%{y}",
        textposition="outside",
        cliponaxis=False,
        customdata=[counted(count, "trial") for count in pruning.after.values()],
        hovertemplate="%{customdata} pruned after epoch %{x}<extra></extra>",
        marker={"color": STATES["pruned"]},
        width=0.5,
    )
    drawn.update_layout(height=260)
    drawn.update_yaxes(whole_ticks([0, *pruning.after.values()]))
    drawn.update_xaxes(type="category")  # early rungs are close together, so their labels would overlap
    return drawn


def draw_values(trials: list[TrialValues], objective: Metric) -> go.Figure:
    """A line for each trial, coloured by state. (Optuna's own plot has a legend entry and a colour for each trial.)"""
    axis = SHARES if is_share(objective) else {"type": "log"}
    drawn = figure("epoch", objective.replace("_", " "), **axis)
    for state, colour in STATES.items():
        own = [trial for trial in trials if trial.state == state]
        if not own:
            continue
        points = [
            (epoch, value, trial.number, 5 if len(trial.values) == 1 else 0)  # one value makes no line
            for trial in own
            for epoch, value in (*trial.values, (None, None))
        ]
        epochs, values, numbers, sizes = zip(*points, strict=True)
        drawn.add_scatter(
            x=epochs,
            y=values,
            customdata=numbers,
            hovertemplate="trial %{customdata}, epoch %{x}: %{y}" + f"<extra>{state}</extra>",
            mode="lines+markers" if any(sizes) else "lines",
            name=state,
            line={"color": colour, "width": 1},
            marker={"size": sizes} if any(sizes) else None,
            opacity=0.6,
            cliponaxis=False,
        )
    drawn.update_xaxes(whole_ticks(epoch for trial in trials for epoch, _ in trial.values))
    drawn.update_layout(height=420)
    return drawn


def section(run: Run) -> PageSection:
    """Prunings and values; LeftOutError if no trial has a value yet."""
    found = collect(load_study(run), run.search.epochs)
    if not found.trials:
        raise LeftOutError("No trial has trained for an epoch yet: run `headhunt search run`.")
    pruned = sum(found.after.values())
    figures = {}
    if pruned:
        solved = (
            "except the linear probe, which is solved, "
            if any(trial.is_solved for trial in found.trials)
            else "of them "
        )
        text = (
            f"{pruned} of {len(found.trials)} trials were pruned by the {run.search.pruner.replace('_', ' ')} pruner, which "
            f"saved {share(found.saved)} of the epochs that all {solved}would have trained. The figures show how many were "
            "pruned after each epoch, and "
        )
        figures["pruned"] = draw_pruned(found)
    else:
        text = f"No trial was pruned (search.pruner is {run.search.pruner}): "
    shown = thinned(found.trials)
    text += "the values of every trial, epoch by epoch."
    if any(trial.is_solved for trial in shown):
        text += " The linear probe, which is solved, has one value, drawn at the last epoch."
    if len(shown) < len(found.trials):
        text = text.replace(
            "every trial", f"{len(shown)} of the {len(found.trials)} trials, evenly spaced over the search"
        )
    figures["intermediate-values"] = draw_values(shown, run.search.objective)
    return PageSection("pruning", "Pruning", text, figures)
