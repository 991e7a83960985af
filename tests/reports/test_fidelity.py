"""The fidelity study's results: what they say, their file, their page and the certificate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pytest
from playwright.sync_api import Browser

from features.runtime.errors import HeadhuntError
from reports.build import build
from reports.config import Run
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
from reports.fidelity.plan import Plan, make_plan
from reports.fidelity.results import Measured, certificate_of, cost_results, summarise
from reports.fidelity.section import _shown
from reports.fidelity.section import section as fidelity_section
from search.certificate import Agreement, Certificate, load_certificate, write_certificate
from search.leaderboard import leaders
from tests.reports.test_fidelity_plan import with_fidelity


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
    assert (
        "Warning: Spearman 0.00 is below" in Certificate(date="2026-11-30", seeds=2, frozen=agreement).lines("", 0.5)[1]
    )


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
