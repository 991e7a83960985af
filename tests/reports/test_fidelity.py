"""The fidelity study: its plan, its folder, its output, and the command after a kill and a rerun."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
import typer
import yaml
from playwright.sync_api import Browser

from features.augmentation.policies import policy_copies
from features.cache.views import Views
from features.run_file import load
from features.runtime.errors import HeadhuntError, UsageError
from reports.build import build
from reports.config import FidelityConfig, Run
from reports.fidelity import experiment
from reports.fidelity.artifact import (
    CostResults,
    FailedTrial,
    FidelityResults,
    Interval,
    MeasuredWay,
    RankingRow,
    Way,
    load_results,
    results_file,
    write_results,
)
from reports.fidelity.cost import Cost, Rates, cost_of
from reports.fidelity.figures import lines
from reports.fidelity.plan import Cell, Plan, lay_out, make_plan
from reports.fidelity.results import Measured, certificate_of, cost_results, summarise
from reports.fidelity.section import _shown
from reports.fidelity.section import section as fidelity_section
from search.certificate import Agreement, Certificate, load_certificate, write_certificate
from search.confirm.seed_runs import SeedRun
from search.confirm.trainings import Training
from search.leaderboard import leaders, load_study
from tests.conftest import run_headhunt
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


def measured(run: Run, tuned: bool = True) -> Measured:
    """Invented accuracies: the more copies, the closer to the truth."""
    plan, chosen = make_plan(run), sorted(leaders(run), key=lambda leader: leader.number)
    truth = np.linspace(0.3, 0.8, len(chosen))[:, None]
    draw = np.random.default_rng(0)
    accuracy = {
        cell: np.clip(truth + draw.normal(0, 0.2 / (1 + cell.copies), (len(chosen), 2)), 0, 1)
        for cell in dict.fromkeys([*plan.cells, plan.half_epochs, plan.half_data])
    }
    truth_of = {
        cell: np.clip(truth + draw.normal(0, 0.05, (len(chosen), 2)), 0, 1) for cell in plan.cells if cell.is_fresh
    }
    promoted = {leader.number: 0.5 + 0.05 * place for place, leader in enumerate(chosen[::2])} if tuned else {}
    first_epoch = truth + draw.normal(0, 0.3, (len(chosen), 2))
    loss, failed = {cell: 1 - values for cell, values in accuracy.items()}, {9: "in fine-tuning"}
    return Measured(chosen, accuracy, loss, truth_of, first_epoch, 1 - first_epoch, promoted, failed)


RATES = Rates(8, 0.005, 0.02, 0.001, 0.03, 0.02, 0.004, 0.001, 0.0005)


def cost_of_run(plan: Plan) -> CostResults:
    return cost_results(cost_of(RATES, (0.5, 3.0), 6, {"train": 100, "val": 20, "test": 10}, plan.epochs, 2), RATES)


def results_of(run: Run, tuned: bool = True) -> FidelityResults:
    plan = make_plan(run)
    return summarise(plan, run.reports.fidelity, measured(run, tuned), cost_of_run(plan), "2026-11-25")


def test_what_the_results_say(searched: Run) -> None:
    run = with_fidelity(searched)
    results = results_of(run)
    write_results(run.workdir, results)
    assert load_results(run.workdir) == results
    assert len(results.views) == 17
    assert [row.fresh for row in results.views].count(True) == 4
    assert {row.against for row in results.ranking} == {"fresh", "fine_tuned"}
    own, better = [row for row in results.ranking if (row.what, row.against) == ("own", "fresh")]
    assert [(row.among, row.configurations) for row in (own, better)] == [("all", 6), ("better_half", 3)]
    way = Way(policy="flip_rotate_zoom", copies=2, fresh=False, draw="rotation", clean_share=0.0)
    same = next(row for row in results.ranking if (row.what, row.against, row.way) == ("views", "fresh", way))
    assert own.spearman.value is not None and same.spearman.value is not None
    assert own.spearman.value <= same.spearman.value  # one seed, and the mean of all
    assert results.failed == [FailedTrial(trial=9, reason="in fine-tuning")]
    assert {row.top3_regret_points.value for row in results.ranking if row.against == "fine_tuned"} == {None}
    certificate = certificate_of(results, "recipe")
    assert certificate.frozen.spearman == own.spearman.value
    assert certificate.tuned is not None and certificate.tuned.configurations == 3
    assert certificate_of(results_of(run, tuned=False), "recipe").tuned is None


def test_the_file_has_the_keys_that_it_always_had(searched: Run) -> None:
    run = with_fidelity(searched)
    write_results(run.workdir, results_of(run))
    content = json.loads(results_file(run.workdir).read_text())
    way, agreement = (
        ["policy", "copies", "fresh", "draw", "clean_share"],
        ["configurations", "spearman", "kendall", "top1_regret_points", "top3_regret_points"],
    )
    assert list(content) == [
        *(
            "version",
            "date",
            "configurations",
            "seeds",
            "epochs",
            "tolerance_points",
            "failed",
            "own",
            "views",
            "closing",
        ),
        *("augmentation", "ranking", "single_seed", "hyperparameters", "trials", "cost"),
    ]
    assert (content["version"], list(content["own"]), list(content["single_seed"])) == (3, way, agreement)
    assert list(content["views"][0]) == [*way, "mean_accuracy", "best_accuracy", "gap_points"]
    assert list(content["ranking"][0]) == ["what", *way, "against", "among", *agreement]
    assert list(content["ranking"][0]["spearman"]) == ["value", "low", "high"]
    assert list(content["closing"][0]) == ["policy", "draw", "clean_share", "copies", "low", "high"]
    assert list(content["cost"]) == [*Cost._fields, "rates", "break_even_trials", "table"]
    assert content["cost"]["rates"] == RATES._asdict()
    assert list(content["cost"]["table"][0]) == ["trials", "network", "seed_cache", "own_cache"]


def test_all_the_same_is_no_ranking(searched: Run) -> None:
    run = with_fidelity(searched)
    found = measured(run)
    equal, true = (
        {cell: np.full_like(values, 0.5) for cell, values in each.items()} for each in (found.accuracy, found.truth)
    )
    plan = make_plan(run)
    results = summarise(
        plan, run.reports.fidelity, found._replace(accuracy=equal, truth=true), cost_of_run(plan), "2026-11-25"
    )
    json.dumps(results.model_dump(), allow_nan=False)
    with pytest.raises(HeadhuntError, match="so there is no ranking to compare"):
        certificate_of(results, "recipe")


def test_numbers_that_round_to_nothing_have_no_minus() -> None:
    assert _shown(Interval(value=-0.04, low=-1.2, high=-0.01), 1, plus=True) == "+0.0 (-1.2 to +0.0)"
    assert _shown(Interval(value=-0.004, low=None, high=None)) == "0.00"
    assert _shown(Interval(value=None, low=None, high=None)) == "–"
    agreement = Agreement(configurations=9, spearman=-0.004, low=-0.2, high=-0.001, kendall=-0.0, regret_points=-0.04)
    assert str(agreement) == (
        "Spearman 0.00 (95 % interval -0.20 to 0.00), Kendall 0.00, regret 0.0 points, 9 configurations"
    )
    assert "Warning: 0.00 is below" in Certificate(date="2026-11-30", seeds=2, frozen=agreement).lines("", 0.5)[1]


def test_an_interval_of_accuracies_ends_at_0_and_100_percent() -> None:
    """99 % as cached, and fresh views 1 point below to 3 above it: 98 to 102 %. 1 %, and 3 below to 1 above: -2 to 2 %."""
    way = {"policy": "mild", "clean_share": 0.0, "draw": "rotation", "fresh": False}
    gaps = Interval(value=0.0, low=-3.0, high=1.0), Interval(value=0.0, low=-1.0, high=3.0)
    rows = [
        MeasuredWay(**way, copies=1, mean_accuracy=0.99, best_accuracy=1.0, gap_points=gaps[0]),
        MeasuredWay(**way, copies=2, mean_accuracy=0.01, best_accuracy=1.0, gap_points=gaps[1]),
    ]
    agreement = dict.fromkeys(("spearman", "kendall", "top1_regret_points", "top3_regret_points"), gaps[0])
    ranking = [
        RankingRow(what="views", **dict(row.key), against="fresh", among="all", configurations=2, **agreement)
        for row in rows
    ]
    (line,) = lines(FidelityResults.model_construct(views=rows, ranking=ranking), "accuracy")
    assert line.values == [0.99, 0.01]
    assert line.above == pytest.approx([0.01, 0.01])
    assert line.below == pytest.approx([0.01, 0.01])


def test_the_break_even_is_the_first_number_of_trials_that_is_quicker() -> None:
    cost = Cost(10, 2, 16, 60.0, 20.0, 2.0, 10.0, 500.0, 290.0)
    even = cost.break_even
    assert even == 6
    assert cost.seconds(even)[2] < cost.seconds(even)[0]
    assert cost.seconds(even - 1)[2] >= cost.seconds(even - 1)[0]
    assert cost._replace(network_trial=1.0).break_even is None
    found = cost_of(RATES, (0.5, 3.0), 6, {"train": 100, "val": 20, "test": 10}, 4, 2)
    assert found.network_trial == pytest.approx(120 * 0.005 + 4 * (100 * 0.03 + 20 * 0.02))
    assert found.seed_trial == pytest.approx(4 * (100 * 0.001 + 20 * 0.0005))
    assert (found.own_trial, found.own_start) == (0.5, 3.0)
    assert found.seed_build == pytest.approx(130 * 0.005 + 330 * 0.024)
    assert found.own_build == pytest.approx(130 * 0.005 + 330 * 0.021)


@pytest.mark.parametrize("width", [1200, 390])
def test_the_section_in_a_browser(searched: Run, browser: Browser, width: int) -> None:
    run = with_fidelity(searched)
    write_results(run.workdir, results_of(run))
    page = browser.new_page(viewport={"width": width, "height": 900})
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.goto(Path(build(run)["report"]).resolve().as_uri())
    page.wait_for_function(
        "[...document.querySelectorAll('#fidelity .js-plotly-plot')].every(plot => plot.querySelector('svg.main-svg'))"
    )
    section = page.locator("section#fidelity")
    assert section.locator("h3").all_inner_texts() == [
        "Ranking",
        "Gain from augmentation with a frozen network",
        "Cached views of flip_rotate_zoom",
        "Cached views of mild",
        "Do hyperparameter effects transfer?",
        "Cost",
        "All views",
    ]
    assert section.locator(".js-plotly-plot").count() == 6
    assert "agrees with the ranking under fresh views every epoch" in section.inner_text()
    section.locator("summary").click()
    assert section.locator("details tbody tr").count() == 17
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert noise == []
    page.close()


def test_results_that_cannot_be_used_are_left_out_with_the_command(searched: Run) -> None:
    assert load_results(searched.workdir) is None
    path = results_file(searched.workdir)
    path.parent.mkdir()
    for broken, said in (
        ("{", "cannot be read: Expecting"),
        ("[]", "cannot be read: it is not a JSON object"),
        ("null", "cannot be read: it is not a JSON object"),
        ('{"version": 0}', "was written by another version of Headhunt"),
        ('{"version": 3}', "is damaged: it lacks augmentation, closing, configurations, cost, date"),
    ):
        path.write_text(broken)
        with pytest.raises(HeadhuntError, match=said + r".*Rerun `headhunt reports fidelity` to rewrite it"):
            fidelity_section(searched)


def test_the_certificate_warns_in_plain_words() -> None:
    frozen = {"configurations": 16, "spearman": 0.96, "low": 0.9, "high": 0.99, "kendall": 0.87, "regret_points": 0.4}
    certificate = Certificate.model_validate(
        {"date": "2026-11-25", "seeds": 3, "frozen": frozen, "tuned": {**frozen, "spearman": 0.5}, "finetune": "this"}
    )
    study = optuna.create_study()
    assert load_certificate(study) is None
    write_certificate(study, certificate)
    assert load_certificate(study) == certificate
    numbers = "(95 % interval 0.90 to 0.99), Kendall 0.87, regret 0.4 points, 16 configurations."
    assert certificate.lines("this", 0.3) == [
        f"Fidelity, measured 2026-11-25, against fresh views every epoch: Spearman 0.96 {numbers}",
        f"Against the ranking after fine-tuning: Spearman 0.50 {numbers}",
    ]
    assert certificate.lines("other", 0.97)[-2].endswith(
        "Promote more heads (--top), or search with more cached views."
    )
    *_, warning = certificate.lines("other", 0.7)
    assert warning == (
        "Warning: Spearman 0.50 is below train.fidelity_floor (0.7): this search does not rank heads as fine-tuning does. "
        "Promote more heads (--top), or confirm the leaders first (`headhunt search confirm`)."
    )
    study.set_user_attr("fidelity", {"date": "?"})
    with pytest.raises(
        HeadhuntError, match=r"written by another version\. Rerun `headhunt reports fidelity` to rewrite it"
    ):
        load_certificate(study)
    assert "with a different recipe" in certificate.lines("other", 0.3)[1]


COMMAND = [sys.executable, "-P", "-m", "headhunt", "reports", "fidelity", "--json"]


@pytest.fixture
def searched_widely(searched: Run) -> Run:
    """The run with a study of rates that learn nothing, something and everything, so that a ranking exists."""
    raw = yaml.safe_load(Path("headhunt.yaml").read_text())
    raw["search"]["space"]["schedule"] = {
        "kind": "constant",
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    }
    Path("headhunt.yaml").write_text(yaml.safe_dump(raw))
    shutil.move("run", "before")
    for kept in ("dataset", "cache"):
        shutil.copytree(f"before/{kept}", f"run/{kept}")
    run_headhunt(Path.cwd(), "search", "run")
    return Run.model_validate(raw)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_study_that_is_killed_again_and_again_says_the_same(searched_widely: Run, tmp_path: Path) -> None:
    settings = [f"reports.fidelity.{name}={json.dumps(value)}" for name, value in SMALL.items()]
    overrides = [part for one in settings for part in ("--set", one)]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    before = tmp_path / "undisturbed"
    subprocess.run(["cp", "-r", ".", str(before)], check=True)

    def finish(folder: Path) -> dict[str, Any]:
        done = subprocess.run(
            [*COMMAND, *overrides], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    undisturbed = finish(before)
    moments, kills = random.Random(os.environ.get("HEADHUNT_KILL_SEED")), 0
    while kills < 5:
        with subprocess.Popen(
            [*COMMAND, *overrides],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as running:
            time.sleep(moments.uniform(3, 25))
            if running.poll() is not None:
                break
            # Its stages are in their own process groups, and end with their parent's session here.
            subprocess.run(["pkill", "-9", "-s", str(running.pid)], check=False)
            running.send_signal(signal.SIGKILL)
            kills += 1
    assert kills
    killed = finish(Path.cwd())
    untimed = {"cost", "date", "certificate"}
    assert {k: v for k, v in killed.items() if k not in untimed} == {
        k: v for k, v in undisturbed.items() if k not in untimed
    }
    assert not Path("run/fidelity/test_ledger.csv").exists()
    certificate = load_certificate(load_study(searched_widely))
    assert certificate is not None
    said = subprocess.run(
        [*COMMAND[:4], "train", "promote"], env=environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert certificate.lines(certificate.finetune, 0.7)[0] in said.stderr
