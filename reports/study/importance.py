"""The importance of the search space's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from features.runtime.log import counted
from reports.config import Run
from reports.section import LeftOutError, PageSection
from reports.style import SHARES, figure, text
from search.first_trials import name_of
from search.leaderboard import load_study

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

NEEDED = 8
"""Minimum number of completed trials for importances."""


class Importance(NamedTuple):
    """Parameters, most important first, with shares that add up to 1; computed from `trials` completed trials."""

    names: list[str]
    shares: list[float]
    trials: int


def collect(study: optuna.Study) -> Importance | str:
    """Optuna's fANOVA importances (Hutter et al., 2014) of the parameters common to all sampled trials, over the trials that have
    all of them; or a text that says why there are none."""
    import optuna

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    drawn = [trial for trial in complete if name_of(trial) is None]  # a linear probe has hardly any parameters
    if len(drawn) < NEEDED:
        return f"{counted(len(drawn), 'sampled trial has', 'sampled trials have')} completed; importances need at least {NEEDED}."
    shared = set.intersection(*(set(trial.params) for trial in drawn))
    if len(shared) < 2:
        return "the completed trials have fewer than two parameters in common."
    whole = [trial for trial in complete if shared <= set(trial.params)]
    if len({trial.value for trial in whole}) == 1:
        return "all completed trials have the same value, so no parameter mattered."
    found = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0), params=sorted(shared)
    )
    return Importance(list(found), [float(share) for share in found.values()], len(whole))


def draw(importance: Importance) -> go.Figure:
    """A bar for each parameter."""
    drawn = figure("share of the variance", "", automargin=True)
    drawn.add_bar(
        x=importance.shares[::-1],
        y=[text(name) for name in importance.names[::-1]],
        orientation="h",
        texttemplate="%{x:.0%}",
        textposition="auto",
        textangle=0,
        cliponaxis=False,
    )
    drawn.update_layout(height=120 + 34 * len(importance.names))
    drawn.update_xaxes(**SHARES)
    return drawn


def section(run: Run) -> PageSection:
    """The importances; LeftOutError if they cannot be computed."""
    found = collect(load_study(run))
    if isinstance(found, str):
        raise LeftOutError(f"{found[:1].upper()}{found[1:]} `headhunt search run --trials N` adds trials.")
    text = f"How much of the objective's variance each parameter explains, over {found.trials} completed trials."
    return PageSection("importance", "Parameter importance", text, {"importance": draw(found)})
