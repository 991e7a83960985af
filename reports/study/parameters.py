"""The hyperparameters of the search: each by itself, the important ones together, and two of them against each other."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

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
"""Parameters that are drawn."""

TOGETHER = 5
"""Parameters in the parallel coordinates: as many axes as can be read on a phone."""

FEWEST = 4
"""Complete trials below which a figure of parameters says nothing."""

LEAST = 0.05
"""The share of the variance below which a parameter is not worth an axis of the contour."""

LINES = 300
"""Trials in the parallel coordinates, at most: a line is an object of its own in the page."""


class Shown(NamedTuple):
    """What is drawn of a study: its complete trials with a finite value, the worst first, and the parameters of which they have
    more than one value, the most important first (MOST at most, of `varied`). `still` are the other parameters that trials of the
    study drew.

    `shares` are their importances where they are known; without any, those come first that most trials have. `pair` are the two
    of the contour, None where no two numeric ones have an importance, and `pair_trials` the trials that have both.
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
    """Chooses trials and parameters; a text instead says why there is nothing to draw."""
    import optuna

    found = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    complete = [_as_used(trial) for trial in found if trial.value is not None and math.isfinite(trial.value)]
    if len(complete) < FEWEST:
        return f"{len(complete)} trials ran to their end; figures of parameters need at least {FEWEST}."
    sign = 1 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1
    complete.sort(key=lambda trial: (sign * (trial.value or 0.0), -trial.number))
    varied = [name for name in _by_frequency(complete) if _is_varied(complete, name)]
    if not varied:
        return "no parameter has more than one value among the complete trials."
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
    """The trial with the copies that it trained on: it may have drawn more than its policy has."""
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
    """The first two numeric ones of `names`, if enough trials have both and both vary among these."""
    numeric = [name for name in names if _is_numeric(trials, name)]
    for pair in ((one, other) for place, other in enumerate(numeric) for one in numeric[:place]):
        both = [trial for trial in trials if set(pair) <= set(trial.params)]
        if len(both) >= FEWEST and all(_is_varied(both, name) for name in pair):
            return pair
    return None


def _is_numeric(trials: Sequence[optuna.trial.FrozenTrial], name: str) -> bool:
    """Whether its values are numbers, be it of a range or chosen from a list."""
    values = [trial.params[name] for trial in trials if name in trial.params]
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def section(run: Run) -> PageSection:
    """The parameters in figures; LeftOutError where too few trials have run, or nothing was varied."""
    study = load_study(run)
    shown = collect(study)
    if isinstance(shown, str):
        raise LeftOutError(f"{shown[:1].upper()}{shown[1:]} `headhunt search run --trials N` adds trials.")
    objective = run.search.objective
    order = "the most important first" if shown.ranked else "those first that most trials have"
    first = sum(name_of(trial) is not None for trial in shown.trials)
    text = (
        f"What the {len(shown.trials) - first} drawn trials that ran to their end drew, and what they reached with it. "
    )
    if first:
        who = "first trials were" if first > 1 else "first trial was"
        text += f"{first} {who} not drawn, and shown where the space has the values too. "
    text += f"{_count(shown)} are shown, {order}."
    if shown.still:
        *others, last = shown.still
        names = f"{', '.join(others)} and {last}" if others else last
        text += f" Among the complete trials, {names} did not vary."
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
    text = "A point for each trial that has the parameter; the darker, the later in the search."
    return Block("One at a time", text, figures)


def _parallel(study: optuna.Study, shown: Shown, objective: Metric) -> Block:
    if len(shown.names) < 2:
        return Block("All together", f"Only {shown.names[0]} was varied.")
    places = np.unique(np.linspace(0, len(shown.trials) - 1, LINES).astype(int))
    trials = [shown.trials[place] for place in places]
    names = shown.names[:TOGETHER]
    text = "A line for each trial, from its value through what it drew; the darker, the better."
    if len(names) < len(shown.names):
        text += f" These are the first {len(names)} of the parameters above."
    if len(trials) < len(shown.trials):
        text += f" Of the {len(shown.trials)} trials {len(trials)} are drawn, from the best to the worst."
    if any(name not in trial.params for trial in trials for name in names):
        text += " Trials that lack a parameter cross its axis at None, below its values."
    drawn = parameter_plots.draw_parallel(study, trials, names, objective)
    return Block("All together", text, {"parallel-coordinates": drawn})


def _contour(study: optuna.Study, shown: Shown, objective: Metric) -> Block:
    if shown.pair is None:
        text = f"No contour: no two numeric parameters of a known importance were varied together in {FEWEST} complete trials."
        if not shown.ranked:
            text = "No contour: which two parameters matter most is not known from so few trials, or from equal ones."
        return Block("Two against each other", text)
    one, other = shown.pair
    least = min(shown.pair, key=shown.shares.__getitem__)
    if shown.shares[least] < LEAST:
        text = (
            f"No contour: of the two most important numeric parameters, {one} and {other}, {least} explains "
            f"{share(shown.shares[least])} of the variance. Below {100 * LEAST:.0f} % there is nothing to see."
        )
        return Block("Two against each other", text)
    text = (
        f"{one} against {other}, the two most important numeric parameters, which explain {share(shown.shares[one])} and "
        f"{share(shown.shares[other])} of the variance: "
    )
    text += f"points are the {len(shown.pair_trials)} trials that have both; what lies between them is interpolated."
    drawn, rounded = parameter_plots.draw_contour(study, shown.pair_trials, shown.pair, objective)
    if rounded:
        text += (
            f" Values are rounded to {parameter_plots.STEPS} steps of each axis, and the best trial of a cell counts."
        )
    return Block("Two against each other", text, {"contour": drawn})
