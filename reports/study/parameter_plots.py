"""Optuna's plots of parameters, in the house style."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.study.stand_in import pair_stand_in, stand_in
from reports.style import SHARES, distinct_labels, log_ticks, restyle, shortened, text, whole_ticks
from search.metric import Metric, is_share

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

STEPS = 40
"""Maximum number of values on each axis of a contour."""

LABEL = 24
"""Maximum characters of a parameter's name below its axis of the parallel coordinates."""

LINE = 11
"""Maximum characters per line of a choice beside its axis: a phone has no room for more."""


def draw_slice(
    study: optuna.Study, trials: Sequence[optuna.trial.FrozenTrial], name: str, objective: Metric
) -> go.Figure:
    """The objective over one parameter."""
    from optuna.visualization import plot_slice

    # Optuna colours by trial number, so the stand-in's numbers must be in the search's order.
    ordered = sorted(trials, key=lambda trial: trial.number)
    drawn = restyle(plot_slice(stand_in(study, ordered, [name]), target_name=_title(objective)), 260)
    drawn.update_traces(marker={"showscale": False, "size": 8}, cliponaxis=False)
    drawn.update_yaxes(**_shares(objective))
    if drawn.layout.xaxis.type == "category":  # Optuna labels choices by their repr, e.g. 'relu' in quotes
        for trace in drawn.data:
            trace.x = [_unquoted(value) for value in trace.x]
        choices = [_unquoted(value) for value in drawn.layout.xaxis.categoryarray]
        labels = ["<br>".join(_lines(html.unescape(choice))) for choice in choices]
        drawn.update_xaxes(categoryarray=choices, tickvals=choices, ticktext=labels)
    elif drawn.layout.xaxis.type == "log":
        drawn.update_xaxes(log_ticks(*_ends(trials, name)))
    else:
        drawn.update_xaxes(_whole(trials, name))
    return drawn


def draw_parallel(
    study: optuna.Study, trials: Sequence[optuna.trial.FrozenTrial], names: Sequence[str], objective: Metric
) -> go.Figure:
    """A line for each trial through the objective and its parameters; the last of `trials` is on top."""
    from optuna.visualization import plot_parallel_coordinate

    drawn = restyle(plot_parallel_coordinate(stand_in(study, trials, names), target_name=_title(objective)), 460)
    drawn.update_traces(marker={"showscale": False}, selector={"mode": "markers"})  # the first axis is the scale
    ordered = sorted(names, key=text)
    labels = [_title(objective), *map(text, shortened(ordered, LABEL))]
    drawn.update_xaxes(ticktext=labels, tickangle=-45, automargin=True)
    for axis, found in groupby(drawn.layout.annotations, key=lambda label: int(label.x)):
        ticks = list(found)
        if axis == 0:
            places = _at([trial.value for trial in trials if trial.value is not None], [tick.y for tick in ticks])
            shown = distinct_labels(places) if not is_share(objective) else _percent(places)
        else:
            shown = _beside(trials, ordered[axis - 1], [tick.text for tick in ticks], [tick.y for tick in ticks])
        for tick, label in zip(ticks, shown, strict=True):
            tick.update(text=label, bgcolor="rgba(255,255,255,0.8)", borderpad=0)
    return drawn


def draw_contour(
    study: optuna.Study, trials: Sequence[optuna.trial.FrozenTrial], pair: tuple[str, str], objective: Metric
) -> tuple[go.Figure, bool]:
    """The objective over two parameters, and whether their values were rounded to STEPS places."""
    from optuna.visualization import plot_contour

    drawn = restyle(plot_contour(pair_stand_in(study, trials, pair, STEPS), target_name=_title(objective)), 460)
    for axis, name in zip((drawn.layout.xaxis, drawn.layout.yaxis), sorted(pair, key=text), strict=True):
        if axis.type == "log":
            axis.update(log_ticks(*_ends(trials, name)))
        else:
            axis.update(_whole(trials, name))
    drawn.update_traces(colorbar={"tickformat": _shares(objective).get("tickformat")}, selector={"type": "contour"})
    drawn.update_traces(marker={"size": 6, "line": {"width": 0}}, selector={"type": "scatter"})
    rounded = any(len({trial.params[name] for trial in trials}) > STEPS for name in pair)
    return drawn, rounded


def _title(objective: Metric) -> str:
    return objective.replace("_", " ")


def _shares(objective: Metric) -> dict[str, Any]:
    return SHARES if is_share(objective) else {}


def _whole(trials: Sequence[optuna.trial.FrozenTrial], name: str) -> dict[str, Any]:
    """Ticks of a parameter whose values are all integers; empty otherwise."""
    values = [trial.params[name] for trial in trials if name in trial.params]
    return whole_ticks(values) if all(isinstance(value, int) for value in values) else {}


def _ends(trials: Sequence[optuna.trial.FrozenTrial], name: str) -> tuple[float, float]:
    values = [trial.params[name] for trial in trials if name in trial.params]
    return min(values), max(values)


def _lines(choice: str) -> list[str]:
    """A choice as HTML-escaped lines of at most LINE characters; broken after underscores, hyphens or blanks if possible."""
    lines: list[str] = []
    for part in re.findall(r"[^_\-\s]*[_\-\s]?", choice):
        for start in range(0, len(part), LINE):
            piece = part[start : start + LINE]
            if lines and len(lines[-1]) + len(piece) <= LINE:
                lines[-1] += piece
            else:
                lines.append(piece)
    return [text(line) for line in lines]


def _beside(
    trials: Sequence[optuna.trial.FrozenTrial], name: str, labels: Sequence[str], heights: Sequence[float]
) -> list[str]:
    """Tick labels of a parameter's axis: numbers with few digits, choices wrapped onto several lines.

    `labels` are Optuna's, with three digits; `heights` run from 0 to 1. The lowest label is None if trials lack the parameter.
    """
    found = [(trial.params[name], trial.distributions[name]) for trial in trials if name in trial.params]
    values = [value for value, _ in found]
    absent = list(labels[:1]) if len(found) < len(trials) else []
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return ["<br>".join(_lines(html.unescape(label))) for label in labels]
    if any(hasattr(kind, "choices") for _, kind in found):
        return [*absent, *distinct_labels([float(label) for label in labels[len(absent) :]])]
    is_log = any(getattr(kind, "log", False) for _, kind in found)
    return [*absent, *distinct_labels(_at(values, heights[len(absent) :], is_log))]


def _at(values: Sequence[float], heights: Sequence[float], is_log: bool = False) -> list[float]:
    """The numbers at given heights of the axis of `values`: the smallest at the first height, the largest at 1."""
    low, high = (np.log10(end) if is_log else end for end in (min(values), max(values)))
    places = np.interp(heights, [heights[0], 1.0], [low, high]) if high > low else np.array([low])
    return [float(10**place if is_log else place) for place in places]


def _percent(values: Sequence[float]) -> list[str]:
    return [f"{label}%" for label in distinct_labels([100 * value for value in values], 3)]


def _unquoted(value: str) -> str:
    return value[1:-1] if value[:1] in ("'", '"') else value
