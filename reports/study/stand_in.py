"""Substitute studies for Optuna's plots: some trials and parameters of the real one, with names and choices HTML-escaped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.style import text

if TYPE_CHECKING:
    import optuna


def stand_in(study: optuna.Study, trials: Sequence[optuna.trial.FrozenTrial], names: Sequence[str]) -> optuna.Study:
    """An in-memory study of these completed trials, renumbered, with only these parameters.

    Optuna passes names and choices to plotly, which interprets some HTML in them; those of a hypermodel are free text.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    copy = optuna.create_study(direction=study.direction)
    for trial in trials:
        kept = [name for name in names if name in trial.params]
        copy.add_trial(
            optuna.trial.create_trial(
                value=trial.value,
                params={text(name): _shown(trial.params[name]) for name in kept},
                distributions={text(name): _distribution(trial.distributions[name]) for name in kept},
            )
        )
    return copy


def pair_stand_in(
    study: optuna.Study, trials: Sequence[optuna.trial.FrozenTrial], pair: tuple[str, str], steps: int
) -> optuna.Study:
    """Like `stand_in`, with two numeric parameters that all these trials have, each rounded to at most `steps` values.

    Optuna's contour has a cell for each pair of values: a million for 1,000 trials, too many for a page.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns: list[list[float]] = []
    axes: dict[str, optuna.distributions.BaseDistribution] = {}
    for name in pair:
        values = np.array([trial.params[name] for trial in trials], np.float64)
        log = bool(getattr(trials[0].distributions[name], "log", False))
        if len(np.unique(values)) > steps:
            places = (np.geomspace if log else np.linspace)(values.min(), values.max(), steps)
            scaled = np.log if log else np.asarray
            values = places[np.abs(scaled(values)[:, None] - scaled(places)).argmin(axis=1)]
        columns.append(values.tolist())
        axes[text(name)] = optuna.distributions.FloatDistribution(values.min(), values.max(), log=log)
    copy = optuna.create_study(direction=study.direction)
    for trial, *drawn in zip(trials, *columns, strict=True):
        params = dict(zip(axes, drawn, strict=True))
        copy.add_trial(optuna.trial.create_trial(value=trial.value, params=params, distributions=axes))
    return copy


def _distribution(found: optuna.distributions.BaseDistribution) -> optuna.distributions.BaseDistribution:
    import optuna

    if not isinstance(found, optuna.distributions.CategoricalDistribution):
        return found
    return optuna.distributions.CategoricalDistribution([_shown(choice) for choice in found.choices])


def _shown(value: Any) -> Any:
    return text(value) if isinstance(value, str) else value
