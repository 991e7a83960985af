"""Views as part of the search space: searched if the configuration leaves them open, else fixed as configured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from features.cache.feature_cache import cache_for
from features.cache.views import Views
from reports.config import Run
from search.config import SearchRun
from search.leaderboard import load_study
from search.samplers.choice import make_sampler
from search.searched_views import CLEAN_SHARES, resolved_space
from search.space import SearchSpace
from search.trial import TrialConfig
from tests.conftest import run_headhunt
from tests.search.test_study import history

SHARES = list(CLEAN_SHARES)
TWO = ["flip_rotate_zoom", {"policy": "mild", "copies": 1}]


def run_with(features: dict[str, Any], **search: Any) -> SearchRun:
    return SearchRun.model_validate({"dataset": {"kind": "toy_cars"}, "features": features, "search": search})


@pytest.mark.parametrize(
    ("features", "search", "views"),
    [
        ({}, {}, {"clean_share": SHARES, "copies": {"low": 1, "high": 4}}),
        ({"copies": 1}, {"trials": 3}, {"clean_share": SHARES, "copies": 1}),
        ({}, {"space": {"batch_size": 32}}, {"clean_share": SHARES, "copies": {"low": 1, "high": 4}}),
        (
            {"augmentation": ["mild", {"policy": "flip_rotate_zoom", "copies": 8}]},
            {},
            {"clean_share": SHARES, "policy": ["mild", "flip_rotate_zoom"], "copies": {"low": 1, "high": 8}},
        ),
        (
            {"augmentation": [{"policy": "mild", "copies": 0}, {"policy": "flip_rotate_zoom", "copies": 2}]},
            {},
            {"clean_share": SHARES, "policy": "flip_rotate_zoom", "copies": {"low": 1, "high": 2}},
        ),
        ({"copies": 0}, {}, {}),
        ({}, {"views": {}}, {}),
        ({}, {"views": {"clean_share": 0.5}}, {}),
        ({}, {"space": {"views": {}}}, {}),
        ({}, {"space": {"views": {"copies": [1, 2]}}}, {"copies": [1, 2]}),
        ({}, {"views": {"draw": "per_image"}, "space": {"views": {"copies": [1, 2]}}}, {"copies": [1, 2]}),
        ({}, {"hypermodel": "module:build"}, {}),
    ],
)
def test_what_is_drawn_of_the_views(features: dict[str, Any], search: dict[str, Any], views: dict[str, Any]) -> None:
    run = run_with(features, **search)
    assert resolved_space(run).views == views
    if "hypermodel" not in search:  # which goes without a space, so that not every default can be written out
        again = SearchRun.model_validate(run.model_dump(mode="json"))
        assert resolved_space(again).views == views, "the same when every default is written out"


@pytest.mark.parametrize("sampler", ["random", "tpe", "qmc", "keras_tuner.random"])
def test_clean_photos_alone_have_neither_policy_nor_copies(sampler: str) -> None:
    features = {"augmentation": ["mild", {"policy": "flip_rotate_zoom", "copies": 8}]}
    space = resolved_space(run_with(features, space={"schedule": {}, "batch_size": 32, "head": {"layers": 0}}))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    seen = set()
    for number in range(60):
        study.sampler = make_sampler(sampler, space, 0, number)
        trial = study.ask()
        views = space.suggest(trial, Views(policy="mild", copies=4), 5, 0).views
        existing = [one for one in space.parameters() if one.exists(trial.params)]
        assert trial.params.keys() == {one.name for one in existing}
        share = trial.params["views.clean_share"]
        seen.add((share, views.policy))
        if share == 1:
            assert trial.params.keys() == {"views.clean_share"}
            assert (views.copies, views.clean_share) == (0, 0.0)
        else:
            assert views == Views(
                policy=trial.params["views.policy"], copies=trial.params["views.copies"], clean_share=share
            )
        study.tell(trial, share)
    assert {share for share, _ in seen} == set(SHARES)
    assert {policy for _, policy in seen} == {"mild", "flip_rotate_zoom"}


def test_the_size_counts_clean_photos_once() -> None:
    plain: dict[str, Any] = {"head": {}, "batch_size": 32, "schedule": {}}
    leaves = {"clean_share": SHARES, "policy": ["mild", "other"], "copies": {"low": 1, "high": 3}}
    assert SearchSpace(**plain, views=leaves).size() == 4 * 2 * 3 + 1
    assert SearchSpace(**plain, views={"draw": ["rotation", "per_image"], **leaves}).size() == 2 * (4 * 2 * 3 + 1)
    assert SearchSpace(**plain, views={"copies": [1, 2], "clean_share": [0.0, 1.0]}).size() == 4
    assert SearchSpace(**plain, views={"clean_share": [0.0, 0.5], "copies": [1, 2]}).size() == 4
    grid = make_sampler("grid", SearchSpace(**plain, views=leaves), 0, 24)
    assert grid.exhausted(optuna.create_study()) is None  # type: ignore[attr-defined]
    beyond = make_sampler("grid", SearchSpace(**plain, views=leaves), 0, 25)
    assert "25 configurations" in beyond.exhausted(optuna.create_study())  # type: ignore[attr-defined]


def open_views(folder: Path, augmentation: Any, **search: Any) -> Run:
    """Leaves the views of the run in `folder` open, with these policies."""
    file = folder / "headhunt.yaml"
    raw = yaml.safe_load(file.read_text())
    raw["features"]["augmentation"] = augmentation
    raw["search"] = {**{name: value for name, value in raw["search"].items() if name != "views"}, **search}
    file.write_text(yaml.safe_dump(raw))
    return Run.model_validate(raw)


def forget(folder: Path) -> None:
    (folder / "run" / "study.db").unlink()
    shutil.rmtree(folder / "run" / "trials")


def test_a_study_draws_its_views_whatever_the_number_of_workers(searched: Run) -> None:
    """The policies have 2 copies and 1: a trial of the second that draws 2 has 1."""
    run = open_views(Path.cwd(), TWO, trials=16, epochs=2, generation=8)
    forget(Path.cwd())
    run_headhunt(Path.cwd(), "features", "cache")
    run_headhunt(Path.cwd(), "search", "run")
    alone = history("run")
    forget(Path.cwd())
    run_headhunt(Path.cwd(), "search", "run", "--workers", "2")
    assert history("run") == alone
    keys = {policy: cache_for(run, policy).key for policy in ("flip_rotate_zoom", "mild")}
    fewer = clean = 0
    for trial in load_study(run).trials:
        views = TrialConfig.model_validate(json.loads(trial.user_attrs["config"])).views
        assert trial.user_attrs["cache"] == keys[str(views.policy)]
        if trial.params["views.clean_share"] == 1:
            clean += 1
            assert (views.policy, views.copies) == ("flip_rotate_zoom", 0)
        else:
            drawn = trial.params["views.copies"]
            fewer += views.copies != drawn
            assert views.policy == trial.params["views.policy"]
            assert views.copies == min(drawn, 1 if views.policy == "mild" else 2)
            assert views.clean_share == trial.params["views.clean_share"]
    assert fewer and clean and fewer + clean < 14, "a study that shows too little"
    said = refusal("search", "run", "--set", 'features.augmentation=["flip_rotate_zoom", {policy: mild, copies: 0}]')
    assert "was started with other settings: " in said and "space (views.policy)" in said
    said = refusal("search", "run", "--set", "search.views={clean_share: 0.5}")
    assert "was started with other settings: " in said and "views (was" in said


def views_of(run: Run) -> list[Views]:
    found = [TrialConfig.model_validate(json.loads(trial.user_attrs["config"])) for trial in load_study(run).trials]
    return [config.views for config in found]


def test_without_drawn_copies_a_policy_has_those_that_are_configured(searched: Run) -> None:
    """The cache of flip_rotate_zoom holds 2 copies; if 1 is configured, the second changes nothing, not even for first trials."""
    leaves = {"views": {"policy": ["flip_rotate_zoom", "mild"]}}
    run = open_views(Path.cwd(), TWO, trials=9, epochs=1, first=["notebook"], space=leaves)
    forget(Path.cwd())
    run_headhunt(Path.cwd(), "features", "cache")
    run_headhunt(Path.cwd(), "search", "run")
    drawn = views_of(run)
    assert {(views.policy, views.copies) for views in drawn} == {("flip_rotate_zoom", 2), ("mild", 1)}
    forget(Path.cwd())
    lowered = [{"policy": "mild", "copies": 0}, {"policy": "flip_rotate_zoom", "copies": 1}]
    linear = {"head": {"layers": 0}, "batch_size": 16}
    run = open_views(Path.cwd(), lowered, trials=4, epochs=1, first=["notebook"], space=linear)
    run_headhunt(Path.cwd(), "search", "run")
    first, *others = views_of(run)
    assert (first.policy, first.copies) == ("flip_rotate_zoom", 1)
    assert load_study(run).trials[0].params["views.clean_share"] == 0
    assert {views.copies for views in others} <= {0, 1}


def refusal(*arguments: str) -> str:
    with pytest.raises(AssertionError) as failed:
        run_headhunt(Path.cwd(), *arguments)
    return " ".join(str(failed.value).split())


IDENTITY = {
    "seed": 0,
    "epochs": 4,
    "objective": "val_accuracy",
    "generation": 3,
    "sampler": "tpe",
    "pruner": "none",
    "lanes": None,
    "views": {"policy": None, "copies": None, "clean_share": 0.0, "draw": "rotation"},
}
"""The tiny study's identity as written by commit 02ad395, which did not search views, without its space and cache."""


def test_a_study_of_before_goes_on_with_the_views_that_it_was_made_with(searched: Run) -> None:
    known = load_study(searched).user_attrs["identity"]
    assert {**IDENTITY, "first": [], "space": known["space"], "cache": cache_for(searched).key} == known
    assert known["space"]["views"] == {}
    run = open_views(Path.cwd(), "flip_rotate_zoom", trials=9)
    assert resolved_space(run).views
    done = run_headhunt(Path.cwd(), "search", "run", "--json")
    assert "The study 'tiny' was started with fixed views (all cached copies) and continues with them." in " ".join(
        done.stderr.split()
    )
    trials = load_study(run).trials
    assert len(trials) == 9
    for trial in trials:
        config = TrialConfig.model_validate(json.loads(trial.user_attrs["config"]))
        assert config.views == Views(policy="flip_rotate_zoom", copies=2)
        assert not any(name.startswith("views.") for name in trial.params)
    confirmed = run_headhunt(Path.cwd(), "search", "confirm", "--top", "2", "--seeds", "2", "--json")
    assert len(json.loads(confirmed.stdout.splitlines()[-1])["confirmed"]) == 2
    forget(Path.cwd())
    run_headhunt(Path.cwd(), "search", "run")
    assert all("views.clean_share" in trial.params for trial in load_study(run).trials)


def test_a_dry_run_shows_the_views(searched: Run) -> None:
    open_views(Path.cwd(), TWO)
    done = run_headhunt(Path.cwd(), "search", "run", "--dry-run", "--json")
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["space"]["views"] == {
        "clean_share": SHARES,
        "policy": ["flip_rotate_zoom", "mild"],
        "copies": {"low": 1, "high": 2},
    }
    assert all("views.clean_share" in sample for sample in shown["samples"])
    assert "views.clean_share=" in done.stderr
