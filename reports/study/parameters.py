"""The hyperparameters of the search: one at a time, the important ones together, and two against each other."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from features.runtime.log import counted
from reports.config import Run
from reports.section import Block, LeftOutError, PageSection
from reports.study import importance, parameter_plots
from reports.study.importance import Importance
from reports.style import share
from search.first_trials import name_of
from search.leaderboard import load_study
from search.metric import Metric

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

MOST = 7
"""Maximum number of parameters with a figure."""

TOGETHER = 5
"""Maximum number of axes of the parallel coordinates that are readable on a phone."""

FEWEST = 4
"""Minimum number of completed trials for figures of parameters."""

LEAST = 0.05
"""Minimum share of the variance for a parameter to get an axis of the contour."""

LINES = 300
"""Maximum number of trials in the parallel coordinates: each line is a separate object in the page."""


class Shown(NamedTuple):
    """What the figures of a study show: its completed trials with a finite value, worst first, and the parameters with more than
    one value among them, most important first (at most MOST of `varied`). `still` are the other parameters that trials drew.

    `shares` are the known importances; without any, parameters are ordered by the number of trials that have them. `pair` are
    the two parameters of the contour, or None if there is no pair of numeric ones with known importance; `pair_trials` are the
    trials that have both.
    """

    trials: list[optuna.trial.FrozenTrial]
    names: list[str]
    varied: int
    still: list[str]
    shares: dict[str, float]
    pair: tuple[str, str] | None
    pair_trials: list[optuna.trial.FrozenTrial]

    @property
    def ranked(self) -> bool:
        """Whether any importance is known."""
        return bool(self.shares)


def collect(study: optuna.Study) -> Shown | str:
    """Chooses trials and parameters; or returns a text that says why there is nothing to draw."""
    import optuna

    found = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    complete = [_as_used(trial) for trial in found if trial.value is not None and math.isfinite(trial.value)]
    if len(complete) < FEWEST:
        return f"{counted(len(complete), 'completed trial')}; figures of parameters need at least {FEWEST}."
    sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    complete.sort(key=lambda trial: (sign * (trial.value or 0.0), -trial.number))
    varied = [name for name in _by_frequency(complete) if _is_varied(complete, name)]
    if not varied:
        return "no parameter has more than one value among the completed trials."
    ranking = importance.collect(study)
    known = dict(zip(ranking.names, ranking.shares, strict=True)) if isinstance(ranking, Importance) else {}
    order = [name for name in known if name in varied]
    varied = order + [name for name in varied if name not in order]
    pair = _pair(complete, order)
    both = [trial for trial in complete if pair and set(pair) <= set(trial.params)]
    everyone = study.get_trials(deepcopy=False)
    drawn = {name for trial in everyone for name, one in trial.distributions.items() if not one.single()}
    return Shown(complete, varied[:MOST], len(varied), sorted(drawn - {*varied}), known, pair, both)


def _as_used(trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
    """The trial with the number of copies that it trained on: it may have drawn more than its policy has."""
    import optuna

    name, config = "views.copies", json.loads(trial.user_attrs.get("config", "{}"))
    if "views" not in config or not isinstance(trial.distributions.get(name), optuna.distributions.IntDistribution):
        return trial
    used = copy.copy(trial)
    used.params = {**trial.params, name: config["views"]["copies"]}
    return used


def _by_frequency(trials: Sequence[optuna.trial.FrozenTrial]) -> list[str]:
    names = {name for trial in trials for name in trial.params}
    return sorted(names, key=lambda name: (-sum(name in trial.params for trial in trials), name))


def _is_varied(trials: Sequence[optuna.trial.FrozenTrial], name: str) -> bool:
    return len({trial.params[name] for trial in trials if name in trial.params}) > 1


def _pair(trials: Sequence[optuna.trial.FrozenTrial], names: Sequence[str]) -> tuple[str, str] | None:
    """The first pair of numeric parameters in `names` that enough trials have and that both vary among these trials."""
    numeric = [name for name in names if _is_numeric(trials, name)]
    for pair in ((one, other) for place, other in enumerate(numeric) for one in numeric[:place]):
        both = [trial for trial in trials if set(pair) <= set(trial.params)]
        if len(both) >= FEWEST and all(_is_varied(both, name) for name in pair):
            return pair
    return None


def _is_numeric(trials: Sequence[optuna.trial.FrozenTrial], name: str) -> bool:
    """Whether all its values are numbers, drawn from a range or a list."""
    values = [trial.params[name] for trial in trials if name in trial.params]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def section(run: Run) -> PageSection:
    """The figures of the parameters; LeftOutError if too few trials have completed or nothing varied."""
    study = load_study(run)
    shown = collect(study)
    if isinstance(shown, str):
        raise LeftOutError(f"{shown[:1].upper()}{shown[1:]} `headhunt search run --trials N` adds trials.")
    objective = run.search.objective
    order = "the most important first" if shown.ranked else "the most common first"
    first = sum(name_of(trial) is not None for trial in shown.trials)
    text = f"The parameters of the {len(shown.trials) - first} completed sampled trials, and their results. "
    if first:
        who = "first trials were" if first > 1 else "first trial was"
        text += f"{first} {who} not sampled, and appear where the space contains their values. "
    text += f"{_count(shown)} are shown, {order}."
    if shown.still:
        *others, last = shown.still
        names = f"{', '.join(others)} and {last}" if others else last
        text += f" Among the completed trials, {names} did not vary."
    blocks = [_slices(study, shown, objective), _parallel(study, shown, objective), _contour(study, shown, objective)]
    return PageSection("parameters", "Hyperparameters", text, blocks=blocks)


def _count(shown: Shown) -> str:
    every = shown.varied + len(shown.still)
    if every == len(shown.names):
        return f"All {every} parameters that trials drew"
    return f"{len(shown.names)} of the {every} parameters that trials drew"


def _slices(study: optuna.Study, shown: Shown, objective: Metric) -> Block:
    figures: dict[str, go.Figure] = {}
    for number, name in enumerate(shown.names, 1):
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        key = f"slice-{plain}" if plain and f"slice-{plain}" not in figures else f"slice-{plain}-{number}"
        figures[key] = parameter_plots.draw_slice(study, shown.trials, name, objective)
    text = "Each point is a trial that has the parameter; later trials are darker."
    return Block("One at a time", text, figures)


def _parallel(study: optuna.Study, shown: Shown, objective: Metric) -> Block:
    if len(shown.names) < 2:
        return Block("All together", f"Only {shown.names[0]} was varied.")
    places = np.unique(np.linspace(0, len(shown.trials) - 1, LINES).astype(int))
    trials = [shown.trials[place] for place in places]
    names = shown.names[:TOGETHER]
    text = "Each line is a trial, from its value through its parameters; better trials are darker."
    if len(names) < len(shown.names):
        text += f" These are the first {len(names)} of the parameters above."
    if len(trials) < len(shown.trials):
        text += f" Of the {len(shown.trials)} trials {len(trials)} are shown, evenly spaced from the best to the worst."
    if any(name not in trial.params for trial in trials for name in names):
        text += " Trials without a parameter cross its axis at None, below its values."
    drawn = parameter_plots.draw_parallel(study, trials, names, objective)
    return Block("All together", text, {"parallel-coordinates": drawn})


def _contour(study: optuna.Study, shown: Shown, objective: Metric) -> Block:
    if shown.pair is None:
        text = (
            f"No contour: no two numeric parameters of known importance varied together in {FEWEST} completed trials."
        )
        if not shown.ranked:
            text = "No contour: with too few trials, or equal values, it is unknown which two parameters matter most."
        return Block("Two against each other", text)
    one, other = shown.pair
    least = min(shown.pair, key=shown.shares.__getitem__)
    if shown.shares[least] < LEAST:
        text = (
            f"No contour: of the two most important numeric parameters, {one} and {other}, {least} explains "
            f"{share(shown.shares[least])} of the variance. A contour needs at least {100 * LEAST:.0f} %."
        )
        return Block("Two against each other", text)
    text = (
        f"{one} against {other}, the two most important numeric parameters, which explain {share(shown.shares[one])} and "
        f"{share(shown.shares[other])} of the variance: "
    )
    text += f"points are the {len(shown.pair_trials)} trials that have both; values between them are interpolated."
    drawn, rounded = parameter_plots.draw_contour(study, shown.pair_trials, shown.pair, objective)
    if rounded:
        text += f" Values are rounded to {parameter_plots.STEPS} steps per axis, and each cell shows its best trial."
    return Block("Two against each other", text, {"contour": drawn})
