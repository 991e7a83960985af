"""What mattered among random trials: the best, and the mean of the best tenth, by the levels of each factor; and fANOVA."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

EDGES: dict[str, tuple[float, ...]] = {
    "learning_rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1.0),
    "weight_decay": (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
    "l2": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
    "dropout": (0.0, 0.2, 0.35, 0.5, 0.7),
}
"""Ranges in which numbers are compared."""

FACTORS = (
    "layers", "units", "batch_norm", "standardize", "dropout", "l2", "weight_decay", "label_smoothing", "batch_size",
    "schedule", "learning_rate", "clean_share",
)  # fmt: skip


def load_trials(study: Path) -> pd.DataFrame:
    """The complete trials of a study, best first, in points; trials on clean photos alone have a clean share of 1."""
    trials = pd.read_csv(study / "trials.csv")
    trials = trials[trials["state"] == "COMPLETE"]
    clean = np.where(trials["views_copies"] == 0, 1.0, trials["views_clean_share"])
    trials = trials.assign(value=100 * trials["value"], clean_share=clean)
    return trials.sort_values("value", ascending=False).reset_index(drop=True)


def by_level(trials: pd.DataFrame) -> pd.DataFrame:
    """A row for each level of each factor: how many trials, the best, the mean of the best tenth (three at least), the median."""
    rows: list[tuple[Any, ...]] = []
    for factor in FACTORS:
        levels: Any = trials[factor]
        if factor in EDGES:
            edges = EDGES[factor]
            labels = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
            levels = pd.cut(levels, edges, labels=labels, include_lowest=True)
        for level, values in trials["value"].groupby(levels, observed=True):
            top = values.nlargest(max(3, round(len(values) / 10)))
            rows.append((factor, str(level), len(values), values.max(), top.mean(), values.median()))
    return pd.DataFrame(rows, columns=["factor", "level", "trials", "best", "top", "median"])


def importances(trials: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """fANOVA's share of each factor in the variance of the better half's range: what is below the median counts as the median,
    so that how badly a training fails explains nothing. Empty if the better half are all equally good."""
    import optuna

    if trials["value"].median() == trials["value"].max():
        return {}
    study = optuna.create_study(direction="maximize")
    factors = [name for name in FACTORS if trials[name].nunique() > 1]
    floor = trials["value"].median()
    for row in trials.to_dict("records"):
        values = {
            name: np.log10(row[name]) if name in ("learning_rate", "l2", "weight_decay") else row[name]
            for name in factors
        }
        distributions = {name: _distribution(trials, name) for name in factors}
        study.add_trial(
            optuna.trial.create_trial(params=values, distributions=distributions, value=max(row["value"], floor))
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=64, seed=seed)
    found: dict[str, float] = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return found


def factors_table(studies: Sequence[Path]) -> pd.DataFrame:
    """The mean over studies of each level's best, best tenth and median, as differences from those of the study; and the worst of
    the differences of the best tenth."""
    parts = []
    for study in studies:
        trials = load_trials(study)
        top = trials["value"].nlargest(max(3, round(len(trials) / 10))).mean()
        found = by_level(trials)
        parts.append(
            found.assign(
                best=found["best"] - trials["value"].max(),
                top=found["top"] - top,
                median=found["median"] - trials["value"].median(),
            )
        )
    grouped = pd.concat(parts).groupby(["factor", "level"], sort=False)
    table = grouped.agg(
        trials=("trials", "sum"),
        best=("best", "mean"),
        top=("top", "mean"),
        worst=("top", "min"),
        median=("median", "mean"),
    )
    return table.reset_index()


def _distribution(trials: pd.DataFrame, name: str) -> Any:
    import optuna

    if name in EDGES:
        column = np.log10(trials[name]) if name != "dropout" else trials[name]
        return optuna.distributions.FloatDistribution(float(column.min()), float(column.max()))
    return optuna.distributions.CategoricalDistribution(sorted(trials[name].unique().tolist()))
