"""The ranking: by the objective, then by validation loss, then by number, of epochs, trials and curves alike."""

from __future__ import annotations

import numpy as np
import optuna
import pandas as pd
import pytest

from features.audit.moments import feature_moments
from features.cache.feature_cache import cache_for
from reports.config import Run
from search.config import SearchRun
from search.driver.stopping import End
from search.heads import build_head, set_head_weights
from search.leaderboard import leaders, load_study
from search.metric import Metric
from search.ranking import Score, best_place, ranked, ranking
from search.records import are_kept, load_curves, load_weights
from search.study import _result


def trial(number: int, value: float | None, val_loss: float | None) -> optuna.trial.FrozenTrial:
    state = optuna.trial.TrialState.PRUNED if value is None else optuna.trial.TrialState.COMPLETE
    attributes: dict[str, object] = {"config": "{}"} | ({} if val_loss is None else {"val_loss": val_loss})
    made = optuna.trial.create_trial(state=state, value=value, user_attrs=attributes)
    made.number = number
    return made


def test_ties_go_to_the_lower_loss_and_then_to_the_lower_number() -> None:
    trials = [
        trial(0, 0.98, None),  # from a study older than the attribute
        trial(1, 0.98, 0.410), trial(2, 0.98, 0.156), trial(3, 0.99, 0.9), trial(4, 0.98, 0.156), trial(5, None, 0.1),
    ]  # fmt: skip
    assert [each.number for each in ranked(trials, "val_accuracy")] == [3, 2, 4, 1, 0]
    losses = [trial(0, 0.3, 0.3), trial(1, 0.2, 0.2), trial(2, 0.2, 0.2)]
    assert [each.number for each in ranked(losses, "val_loss")] == [1, 2, 0]


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss", "val_top5_accuracy"])
def test_curves_are_ranked_as_pandas_sorts_them(objective: Metric) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        names = ["val_accuracy", "val_loss", "val_top5_accuracy"]
        table = pd.DataFrame(random.integers(0, 3, (8, 3)).astype(float), columns=names)
        table.iloc[random.integers(8)] = np.nan
        by = [objective, "val_loss"] if objective != "val_loss" else ["val_loss"]
        wanted = table.sort_values(by, ascending=[name == "val_loss" for name in by], kind="stable").index[0]
        assert best_place(objective, table) == wanted


def test_trials_that_others_added_are_not_ranked() -> None:
    study = optuna.create_study(direction="maximize")
    study.add_trials([trial(0, 0.5, 0.1), optuna.trial.create_trial(value=1.0), trial(2, 0.6, 0.1)])
    assert [each.number for each in ranking(study, "val_accuracy")] == [2, 0]


def test_a_search_that_ends_tells_of_its_own_trials_alone() -> None:
    """If only trials added from outside are completed, there is no best one."""
    run, end = SearchRun.model_validate({"dataset": {"kind": "toy_cars"}}), End("trials", "")
    study = optuna.create_study(direction="maximize")
    study.add_trials([optuna.trial.create_trial(value=1.0), trial(1, None, 0.1)])
    told = _result(run, study, end, 1.0)
    assert (told["trials"], told["best"]) == ({"complete": 0, "pruned": 1, "failed": 0}, None)
    study.add_trial(trial(2, 0.5, 0.1))
    told = _result(run, study, end, 1.0)
    assert (told["trials"]["complete"], told["best"]) == (1, {"number": 2, "value": 0.5, "params": {}})


def test_a_score_of_no_number_is_never_better() -> None:
    assert not Score.of("val_accuracy", float("nan"), 0.1) < Score.of("val_accuracy", 0.0, 9.0)
    assert not Score.of("val_accuracy", 0.5, float("nan")) < Score.of("val_accuracy", 0.5, 9.0)


def test_a_study_ranks_and_keeps_by_it(searched: Run) -> None:
    """For every trial on disk: the best epoch of its curves, its loss in the study, and the weights that produced it."""
    cache, study = cache_for(searched), load_study(searched)
    val, labels = cache.arrays("val", dtype=np.float32)
    scores, weighed = [], 0
    for leader in leaders(searched):
        curves, facts = load_curves(searched.workdir, leader.number), study.trials[leader.number].user_attrs
        best = curves.sort_values(["val_accuracy", "val_loss"], ascending=[False, True], kind="stable").iloc[0]
        assert facts["best_epoch"] == best["epoch"]
        assert facts["val_loss"] == pytest.approx(best["val_loss"], rel=1e-6)
        scores.append((-best["val_accuracy"], facts["val_loss"], leader.number))
        if are_kept(searched.workdir, leader.number):
            weighed += 1
            moments = feature_moments(cache.arrays("train")[0])
            head = build_head(leader.config.head, cache.shape_of(None), len(cache.class_names), moments)
            set_head_weights(head, load_weights(searched.workdir, leader.number))
            logits = np.asarray(head(val, training=False), np.float64)
            entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
            assert entropy.mean() == pytest.approx(facts["val_loss"], rel=1e-3)
    assert scores == sorted(scores)
    assert weighed == searched.search.keep or weighed == len(scores)
