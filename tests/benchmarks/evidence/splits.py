"""What a user ends with, over several splits: probe, the defaults before the evidence, and the default search, on validation and
test photos."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from features.cache.feature_cache import FeatureCache, cache_for
from features.run_file import load
from search.config import SearchRun
from search.confirm.ranking import load_confirmation
from search.confirm.statistics import interval
from search.leaderboard import Leader, leaders
from tests.benchmarks.evidence.compare import accuracy_on_test
from tests.benchmarks.evidence.datasets import configuration
from tests.benchmarks.evidence.trials import SPACES, headhunt, make_cache, write_study

BEFORE: dict[str, Any] = {"space": SPACES["before"], "first": [], "views": {}, "pruner": "hyperband"}
"""The defaults of 02ad395: its space, its pruner, nothing tried first, every copy in rotation without clean photos."""

SEARCHES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default_40": ({}, {"trials": 40}),
    "before_200": (
        {"augmentation": "flip_rotate_zoom", "copies": 8, "pooling": "avg"},
        {**BEFORE, "trials": 200, "epochs": 30},
    ),
    "before_40": (
        {"augmentation": "flip_rotate_zoom", "copies": 2, "pooling": "avg"},
        {**BEFORE, "views": {"copies": 2}, "trials": 40, "epochs": 20},
    ),
}
"""Searches by name: what they change in the sections `features` and `search`. The probe and the confirmed trial of the first are
rows of their own."""


def run_split(out: Path, name: str, split: int, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Runs the wanted searches on one split of a data set, where they were not run before; a row for each answer."""
    shared, rows = out / name / f"split_{split}", list[dict[str, Any]]()
    for label in wanted:
        features, section = SEARCHES[label]
        raw = configuration(out, name, split)
        raw["features"] |= {"copies": 4, **features}
        config = write_study(shared / label, raw | {"search": {"seed": split, **section}}, shared / "run")
        rows += _answers(config, label, label == next(iter(SEARCHES)))
    return [{"set": name, "split": split, **row} for row in rows]


def _answers(config: Path, label: str, is_default: bool) -> list[dict[str, Any]]:
    file = config.with_name("answers.json")
    if not file.exists():
        make_cache(config)
        started = time.monotonic()
        headhunt("search", "run", "-c", config)
        searched = time.monotonic() - started
        if is_default:
            headhunt("search", "confirm", "-c", config)
        confirmed = time.monotonic() - started
        run = load(SearchRun, config)
        found = leaders(run)
        rows = [_row(run, label, found[0], searched)]
        if is_default:
            probe = next(leader for leader in found if leader.first == "probe")
            rows = [_probe_on_mean(cache_for(run)), _row(run, "probe", probe, None), *rows]
            confirmation = load_confirmation(run, found)
            assert confirmation is not None
            best = next(leader for leader in found if leader.number == confirmation.confirmed[0].number)
            rows.append(_row(run, f"{label}_confirmed", best, confirmed))
        file.write_text(json.dumps(rows, indent=1))
    answers: list[dict[str, Any]] = json.loads(file.read_text())
    return answers


def _row(run: SearchRun, answer: str, leader: Leader, seconds: float | None) -> dict[str, Any]:
    what = leader.first or "drawn"
    return {
        "answer": answer,
        "trial": f"{leader.number} ({what})",
        "seconds": seconds,
        "val": 100 * leader.value,
        "test": 100 * accuracy_on_test(run, leader),
    }


def _probe_on_mean(cache: FeatureCache) -> dict[str, Any]:
    """scikit-learn's logistic regression on the clean photos' standardised mean features, L2 by cross-validation."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, val, test = (cache.arrays(split, dtype=np.float32, parts="avg") for split in ("train", "val", "test"))
    model = make_pipeline(
        StandardScaler(), LogisticRegressionCV(Cs=np.logspace(-4, 0, 5), cv=3, scoring="neg_log_loss", max_iter=500)
    )
    model.fit(*train)
    right = {name: 100 * float((model.predict(x) == y).mean()) for name, (x, y) in (("val", val), ("test", test))}
    return {"answer": "sklearn_on_mean", "trial": "", "seconds": None, **right}


def summed_up(rows: Sequence[dict[str, Any]], reference: str = "default_40") -> pd.DataFrame:
    """A row for each data set and answer: the means over splits with 95 % intervals, and how much more test accuracy
    `reference` has, paired by split, with interval and the p-value of the paired t-test."""
    found, summary = pd.DataFrame(rows), list[dict[str, Any]]()
    for (name, answer), own in found.groupby(["set", "answer"], sort=False):
        ours = found[(found["set"] == name) & (found["answer"] == reference)]
        both = own.merge(ours, on="split", suffixes=("", "_reference"))
        row = {"set": name, "answer": answer, "splits": len(own), "seconds": own["seconds"].mean()}
        row |= {"val": _mean(own["val"]), "test": _mean(own["test"])}
        if answer != reference and len(both) > 1:
            better = (both["test_reference"] - both["test"]).to_list()
            row |= {
                "gain_on_test": _mean(better),
                "p": float(stats.ttest_rel(both["test_reference"], both["test"]).pvalue),
            }
        summary.append(row)
    return pd.DataFrame(summary)


def _mean(values: Any) -> str:
    if len(values) < 2:
        return f"{float(values.iloc[0]):.1f}"
    mean, low, _ = interval(list(values))
    return f"{mean:z.1f} ± {mean - low:.1f}"
