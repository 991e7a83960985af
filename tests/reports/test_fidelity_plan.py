"""The fidelity study's plan: what is trained and fine-tuned, with which seeds, and settings that are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer

from features.augmentation.policies import policy_copies
from features.cache.views import Views
from features.run_file import load
from features.runtime.errors import UsageError
from reports.config import FidelityConfig, Run
from reports.fidelity import experiment
from reports.fidelity.plan import Cell, lay_out, make_plan
from search.confirm.seed_runs import SeedRun
from search.confirm.trainings import Training
from search.leaderboard import leaders
from tests.fabricated import fabricate_promotion, seed_run
from train.promotion.artifact import read_promotion

SMALL: dict[str, Any] = {
    "configurations": 5,
    "seeds": 2,
    "copies": [0, 1, 2, 9],
    "draws": ["rotation", "per_image"],
    "clean_shares": [0, 0.5],
    "policies": ["mild"],
    "finetuned": 3,
    "resamples": 100,
    "cost_photos": 8,
}


def with_fidelity(run: Run, **settings: Any) -> Run:
    """The run with a small fidelity study."""
    fidelity = FidelityConfig.model_validate({**SMALL, **settings})
    return run.model_copy(update={"reports": run.reports.model_copy(update={"fidelity": fidelity})})


def test_the_plan_measures_every_way_once(searched: Run) -> None:
    plan = make_plan(with_fidelity(searched, activation_copies=8))
    assert plan.epochs == 4
    assert plan.own == Cell("flip_rotate_zoom", 2, "rotation", 0.0, 4)
    assert (plan.half_epochs.epochs, plan.half_data.train_share) == (2, 0.5)
    by_policy: dict[str, list[tuple[int, str, float]]] = {}
    for cell in plan.cells:
        by_policy.setdefault(cell.policy, []).append((cell.copies, cell.draw, cell.clean_share))
    ways = [(1, "rotation"), (2, "rotation"), (2, "per_image"), (4, "rotation")]
    expected = {(copies, draw, share) for copies, draw in ways for share in (0.0, 0.5)}
    assert set(by_policy["mild"]) == expected
    assert set(by_policy["flip_rotate_zoom"]) == {*expected, (0, "rotation", 0.0)}
    assert len(plan.cells) == len(set(plan.cells)) == 2 * 8 + 1
    assert plan.full(plan.own) == Cell("flip_rotate_zoom", 4, "rotation", 0.0, 4)
    assert {plan.full(cell) for cell in plan.cells} <= set(plan.cells)
    assert (plan.run.name, plan.run.search.sampler, plan.run.search.trials) == ("tiny-fidelity", "qmc", 5)
    assert policy_copies(plan.run.features) == {"flip_rotate_zoom": 4, "mild": 4}
    assert not plan.run.train.evaluate_test  # nothing here uses the test photos
    assert plan.run.train.finetune.activation_copies == 8


def test_as_many_configurations_as_the_readme_says() -> None:
    settings = FidelityConfig()
    assert (settings.configurations, settings.finetuned, settings.activation_copies) == (40, 12, 4)


def test_the_searchs_own_views_are_always_measured(searched: Run) -> None:
    views = searched.search.views.model_copy(update={"clean_share": 0.3, "draw": "per_image"})
    run = searched.model_copy(update={"search": searched.search.model_copy(update={"views": views})})
    plan = make_plan(with_fidelity(run))
    assert plan.own == Cell("flip_rotate_zoom", 2, "per_image", 0.3, 4)
    assert plan.full(plan.own) in plan.cells
    clean = views.model_copy(update={"copies": 0})
    run = searched.model_copy(update={"search": searched.search.model_copy(update={"views": clean})})
    plan = make_plan(with_fidelity(run))
    assert plan.own == Cell("flip_rotate_zoom", 0, "rotation", 0.0, 4)
    assert plan.full(plan.own).copies == 4


def test_where_trials_draw_their_views_those_of_the_best_are_certified(
    searched: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {leader.config.views.copies for leader in leaders(searched)} == {2}
    space = searched.search.space.model_copy(update={"views": {"clean_share": [0.0, 0.5]}})
    views = searched.search.views.model_copy(update={"copies": 1})
    search = searched.search.model_copy(update={"space": space, "views": views})
    plan = make_plan(with_fidelity(searched.model_copy(update={"search": search})))
    assert plan.own == Cell("flip_rotate_zoom", 2, "rotation", 0.0, 4)
    assert plan.run.search.views == leaders(searched)[0].config.views
    assert plan.run.search.space.views == {}
    said = " ".join(capsys.readouterr().err.split())
    assert f"those of the best trial, {leaders(searched)[0].number}: 2 copies, rotation" in said


def test_the_folder_has_what_is_cached_already_and_no_study_of_other_settings(searched: Run) -> None:
    run = with_fidelity(searched)
    plan = make_plan(run)
    lay_out(plan, run)
    assert load(Run, plan.file) == plan.run
    shards = sorted(Path("run/cache").glob("*/*.tfrecord"))
    assert shards
    for shard in shards:
        assert (Path("run/fidelity/cache") / shard.parent.name / shard.name).stat().st_ino == shard.stat().st_ino
    assert Path("run/fidelity/dataset/index.csv").exists()
    lay_out(make_plan(with_fidelity(searched, configurations=7, copies=[1], seeds=5)), run)  # it may grow
    other = with_fidelity(searched.model_copy(update={"search": searched.search.model_copy(update={"seed": 9})}))
    with pytest.raises(
        UsageError, match=r"is a fidelity study with different settings: search.seed. Restore them, or move"
    ):
        lay_out(make_plan(other), other)


def test_no_training_of_the_truth_has_a_seed_of_what_it_judges(searched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings are recorded instead of run: each returns its seed as accuracy."""
    asked: list[Training] = []

    def record(variables: Any, function: Any, objective: Any, wanted: list[Training]) -> dict[str, SeedRun]:
        asked.extend(wanted)
        return {each.key: seed_run(each.trial, 0, each.config.seed, key=each.key) for each in wanted}

    monkeypatch.setattr(experiment, "in_own_process", record)
    caches = SimpleNamespace(checked=lambda views: views, of=of)
    objective = SimpleNamespace(caches=caches, environment={}, function="", metric="val_accuracy", lanes=1)
    monkeypatch.setattr(experiment, "open_objective", lambda run: objective)
    run = with_fidelity(searched, seeds=3)
    plan, chosen = make_plan(run), leaders(run)
    trained = experiment._train(plan, run.reports.fidelity, chosen)
    cells = {plan.half_epochs, plan.half_data, *plan.cells}
    assert set(trained.accuracy) == cells and set(trained.truth) == {cell for cell in plan.cells if cell.is_fresh}
    judged, truth = (
        np.concatenate(list(each.values()), axis=1).astype(int) for each in (trained.accuracy, trained.truth)
    )
    for row in range(len(chosen)):
        assert len(set(judged[row])) == len(set(truth[row])) == 3
        assert not {*judged[row]} & {*truth[row]}
        assert run.search.seed not in {*judged[row], *truth[row]}
        assert chosen[row].config.seed not in {*judged[row], *truth[row]}
    assert {each.trial for each in asked} == {leader.number for leader in chosen}


def test_fine_tuned_accuracies_are_of_the_plans_recipe(searched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a better promotion of an earlier recipe. The fine-tuned ones follow the ranking, where losses break ties."""
    run = with_fidelity(searched, finetuned=3)
    folders = {}
    for place, accuracy in ((0, 0.6), (2, 0.5), (5, 0.4)):
        number = fabricate_promotion(run, place, {"accuracy": accuracy}, recipe="aaaaaaaa")
        fabricate_promotion(run, place, {"accuracy": 0.9}, recipe="bbbbbbbb")
        folders[number] = run.workdir / "promotions" / f"{number}-aaaaaaaa"
    asked: list[list[int]] = []

    def promote(arguments: list[str]) -> dict[str, Any]:
        numbers = [int(arguments[place + 1]) for place, word in enumerate(arguments) if word == "--trial"]
        asked.append(numbers)
        if broken in numbers:
            raise typer.Exit(1)
        found = [read_promotion(folders[number]) for number in numbers]
        return {"promotions": [each.summary().model_dump() for each in found if each is not None]}

    monkeypatch.setattr(experiment, "run_stage", promote)
    ranked = [leader.number for leader in leaders(run)]
    chosen = sorted(leaders(run), key=lambda leader: leader.number)
    plan, broken = make_plan(run)._replace(run=run), -1
    wanted = {ranked[0]: 0.6, ranked[2]: 0.5, ranked[5]: 0.4}
    assert experiment._fine_tune(plan, run.reports.fidelity, chosen, []) == (wanted, {})
    assert asked == [[ranked[0], ranked[2], ranked[5]]]
    broken = ranked[2]
    del wanted[broken]
    assert experiment._fine_tune(plan, run.reports.fidelity, chosen, []) == (wanted, {broken: "in fine-tuning"})


def of(views: Views) -> Any:
    """A cache with a key."""
    return SimpleNamespace(key=views.model_dump_json())


def test_settings_that_cannot_be(searched: Run) -> None:
    with pytest.raises(ValueError, match=r"received 'milde'; allowed: mild, flip_rotate_zoom"):
        FidelityConfig.model_validate({"policies": ["milde"]})
    with pytest.raises(ValueError, match="`0 <= share < 1` must hold, but got 1"):
        FidelityConfig.model_validate({"clean_shares": [1.0]})
    with pytest.raises(
        ValueError, match="received 2; it must be at least 3, since a ranking needs 3, or 0 for no fine-tuning"
    ):
        FidelityConfig.model_validate({"finetuned": 2})
    for changed, said in (
        (
            {"objective": "val_loss"},
            r"search.objective: received val_loss; it must be val_accuracy, because the fidelity study",
        ),
    ):
        search = searched.search.model_copy(update=changed)
        with pytest.raises(UsageError, match=said):
            make_plan(with_fidelity(searched.model_copy(update={"search": search})))
    with pytest.raises(UsageError, match=r"in 2 epochs all of the search's 2 views are fresh, but not in its own 4"):
        make_plan(with_fidelity(searched, epochs=2))
    search = searched.search.model_copy(update={"hypermodel": "module:function"})
    with pytest.raises(
        UsageError, match=r"does not support hypermodels. Measure fidelity on a run with a search space"
    ):
        make_plan(with_fidelity(searched.model_copy(update={"search": search})))
