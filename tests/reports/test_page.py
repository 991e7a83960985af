"""The page as a reader sees it: in headless Chromium, from a real run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page

from reports.build import _page, build
from reports.config import Run
from reports.dataset import section as dataset_section
from reports.errors import calibration, confusions
from reports.errors.predictions import load_predictions
from reports.models import phases, promotions
from reports.section import PageSection, Table
from reports.study import history, importance, leader_curves
from search.leaderboard import leaders, load_study
from search.records import load_curves
from search.schedules import Plateau
from tests.fabricated import fabricate_promotion
from train.baselines.measure import BASELINES, measure_baselines
from train.promotion.artifact import find_promotion, find_promotions
from train.promotion.promote import promote


@pytest.fixture
def promoted_run(searched: Run) -> Run:
    promote(searched)
    return searched


def rename_class(run: Run, name: str) -> None:
    """Renames class `a` in all files of the run."""
    index = run.workdir / "dataset" / "index.csv"
    table = pd.read_csv(index, keep_default_na=False)
    table.loc[table["class_name"] == "a", "class_name"] = name
    table.to_csv(index, index=False)
    prepared = run.workdir / "dataset" / "prepared.json"
    prepared.write_text(prepared.read_text().replace('"a"', '"<script>document.title=1</script>"'))


def open_page(browser: Browser, file: Path, width: int = 1200) -> tuple[Page, list[str]]:
    """The page, with its console messages and network requests."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(180_000)
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on(
        "request",
        lambda request: noise.append(request.url) if not request.url.startswith(("file:", "data:", "blob:")) else None,
    )
    page.goto(file.resolve().as_uri())
    page.wait_for_function(
        "[...document.querySelectorAll('.js-plotly-plot')].every(plot => plot.querySelector('svg.main-svg'))"
    )
    return page, noise


def titles_among_ticks(page: Page) -> list[str]:
    """The axis titles that overlap tick labels in the drawn figures."""
    found: list[str] = page.evaluate(
        """[...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => {
            const box = label => label.getBoundingClientRect();
            const ticks = [...plot.querySelectorAll('[class$=tick] > text')].filter(tick => tick.textContent).map(box);
            const meets = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
            return [...plot.querySelectorAll('[class*=title]')]
                .filter(title => title.tagName === 'text' && ticks.some(tick => meets(box(title), tick)))
                .map(title => `${plot.id}: ${title.textContent}`);
        })"""
    )
    return found


def covered_legends(page: Page) -> list[str]:
    """The figures whose buttons overlap their legend or their drawing."""
    found: list[str] = page.evaluate(
        """[...document.querySelectorAll('.js-plotly-plot')].filter(plot => {
            const buttons = plot.querySelector('.modebar-group').getBoundingClientRect();
            return [...plot.querySelectorAll('.legend, .bglayer rect')].map(part => part.getBoundingClientRect()).some(
                part => part.left < buttons.right && buttons.left < part.right && part.top < buttons.bottom
                    && buttons.top < part.bottom);
        }).map(plot => plot.id)"""
    )
    return found


def test_a_title_that_lies_among_ticks_is_found(browser: Browser) -> None:
    page = browser.new_page()
    page.set_content(
        "<div class=js-plotly-plot id=x><svg width=300 height=90><g class=xtick><text x=0 y=30>0.5</text></g>"
        "<text class=xtitle x=5 y=32>epoch</text><text class=ytitle x=5 y=80>loss</text></svg></div>"
    )
    assert titles_among_ticks(page) == ["x: epoch"]
    page.close()


def test_a_page_of_two_classes_has_their_curves_and_no_top5(searched: Run, browser: Browser) -> None:
    index, prepared = (searched.workdir / "dataset" / name for name in ("index.csv", "prepared.json"))
    table = pd.read_csv(index, keep_default_na=False)
    table.loc[table["label"] == 2, ["label", "class_name"]] = [1, "b"]
    table.to_csv(index, index=False)
    prepared.write_text(json.dumps({**json.loads(prepared.read_text()), "class_names": ["a", "b"]}))
    fabricate_promotion(searched)
    page, noise = open_page(browser, Path(build(searched)["report"]), 390)
    assert noise == []
    text = page.evaluate("document.body.innerText")
    assert "The area under the ROC curve is" in text
    assert "top-5" not in text
    drawn = {"roc": 2, "precision-recall": 2}  # the curve, and that of random guessing
    assert {name: page.locator(f"#figure-{name} .scatterlayer .trace").count() for name in drawn} == drawn
    assert titles_among_ticks(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_long_text_in_a_wide_table_is_not_squeezed_into_a_narrow_column(tmp_path: Path, browser: Browser) -> None:
    long = "256-relu, dropout 0.4, batch normalisation, adam, warmup_cosine, learning rate 0.003, warmup 2 epochs, down to 0"
    columns = ["trial", "validation", "training", "epochs", "seconds", "views", "head"]
    table = Table(columns, [["0", "50.0 %", "50.0 %", "4", "0.8", "1 copy, 50 % clean, mild", long]], set(range(5)))
    run = Run.model_validate({"workdir": str(tmp_path), "dataset": {"kind": "toy_cars"}})
    file = tmp_path / "page.html"
    file.write_text(_page(run, [PageSection("first", "First trials", "", tables=[table])], [], []))
    page, _ = open_page(browser, file, 390)
    lines = page.evaluate(
        """[...document.querySelectorAll("td")].map(cell => {
            const text = document.createRange(); text.selectNodeContents(cell);
            return Math.round(text.getBoundingClientRect().height / 22);
        })"""
    )
    assert max(lines) <= 4
    width = page.locator("td").last.bounding_box()
    assert width and width["width"] <= 390 - 2 * 20  # a column is read without scrolling
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


@pytest.mark.parametrize("width", [1200, 390])
def test_every_section_is_drawn_without_a_complaint_or_the_network(
    promoted_run: Run, browser: Browser, width: int
) -> None:
    result = build(promoted_run)
    searched = ["leaders", "history", "pruning", "parameters", "rates", "curves", "workers"]
    errors = ["confusions", "mistakes", "classes", "calibration"]
    assert result["sections"] == ["promotions", *searched, *errors, "dataset", "cache", "configuration"]
    assert result["left_out"] == ["confirmed", "fidelity", "first", "histories", "importance", "studies"]
    file = Path(result["report"])
    assert file.stat().st_size < 15e6
    page, noise = open_page(browser, file, width)
    assert noise == []
    assert page.locator(".js-plotly-plot").count() == 15
    assert titles_among_ticks(page) == []
    assert covered_legends(page) == []
    prose = page.locator("p, dt, dd, th, figcaption, summary, li").all_text_contents()
    assert [text for text in prose if " %" in text] == []  # no line breaks between a number and its percent sign
    assert [text for text in prose if "95\u00a0% interval" in text]
    for name in result["sections"]:
        assert page.locator(f"section#{name} h2").count() == 1
        page.evaluate(f"document.querySelector('nav a[href=\"#{name}\"]').click()")
        menu, heading = (page.locator(each).bounding_box() for each in ("nav", f"section#{name} h2"))
        assert menu and heading and heading["y"] >= menu["y"] + menu["height"] > 40
    assert page.locator("#left-out").inner_text().startswith("Left out")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    rows = page.locator("#promotions tbody tr")
    assert rows.count() == 2
    assert "frozen" in rows.nth(0).inner_text()
    assert "fine-tuned" in rows.nth(1).inner_text()
    page.close()


def test_baselines_stand_above_the_promoted_models(searched: Run, browser: Browser) -> None:
    measured = [(BASELINES[name].title, found) for name, found in measure_baselines(searched).items()]
    assert [row.title for row in promotions.collect_baselines(searched)] == [title for title, _ in measured]
    promote(searched)
    page, noise = open_page(browser, Path(build(searched)["report"]))
    assert noise == []
    rows = page.locator("#promotions tbody tr")
    assert rows.count() == 3 + 2
    for number, (title, found) in enumerate(measured):
        told = rows.nth(number).inner_text()
        assert told.startswith(title)
        assert found.test is not None and f"{100 * found.test.accuracy:.1f} %" in told
    assert "fine-tuned" in rows.nth(4).inner_text()
    assert "The test photos were evaluated 5 times, on 5 models" in page.locator("#promotions").inner_text()
    page.close()


def test_a_class_name_is_text_and_never_markup(promoted_run: Run, browser: Browser) -> None:
    rename_class(promoted_run, "<script>document.title=1</script>")
    page, noise = open_page(browser, Path(build(promoted_run)["report"]))
    assert noise == []
    assert page.title() == "tiny · Headhunt"
    page.locator("#dataset summary").click()
    assert page.locator("#dataset td", has_text="<script>document.title=1</script>").is_visible()
    page.close()


def test_an_empty_run_says_which_command_makes_each_section(tmp_path: Path, browser: Browser) -> None:
    run = Run.model_validate({"workdir": str(tmp_path / "run"), "dataset": {"kind": "toy_cars"}})
    result = build(run)
    assert result["sections"] == ["configuration"]
    page, noise = open_page(browser, tmp_path / "run" / "report" / "index.html")
    assert noise == []
    text = page.locator("#left-out").inner_text()
    for command in ("headhunt features prepare", "headhunt search run"):
        assert command in text
    page.close()


def test_the_numbers_behind_the_figures(promoted_run: Run) -> None:
    run = promoted_run
    study = load_study(run)
    found = history.collect(study, "val_accuracy")
    assert found.numbers == list(range(6))
    best: list[Any] = [max(found.values[: n + 1]) for n in range(6)]
    assert found.best == best
    assert found.counts == {"complete": 6}
    assert importance.collect(study) == "6 sampled trials have completed; importances need at least 8."
    ranked = leaders(run, 2)
    rates = leader_curves.collect_rates(run, ranked, 15)
    assert rates[0].rates[0] == pytest.approx(ranked[0].config.schedule.values(3, 4)[0])
    assert [len(curve.table) for curve in leader_curves.collect_curves(run, ranked)] == [4, 4]
    frozen, tuned = promotions.collect(run, find_promotions(run))
    assert frozen.metrics.val.accuracy == pytest.approx(ranked[0].value, abs=1e-6)
    assert tuned.stage == "fine-tuned"
    curve = phases.collect(find_promotions(run)[0], "val_accuracy")
    assert (curve.table["epoch"].tolist(), curve.starts, curve.table["thrown_away"].any()) == ([0, 1, 2, 3], [0], False)
    predictions = load_predictions(run)
    mistaken = confusions.collect(predictions, 99)
    table = pd.read_csv(find_promotion(run, mistaken.trial).folder / "predictions.csv").query("split == 'test'")
    assert mistaken.photos == len(table)
    assert mistaken.wrong == (table["label"] != table["predicted_1"]).sum() == sum(row.photos for row in mistaken.worst)
    assert mistaken.wrong == pytest.approx(len(table) * (1 - tuned.metrics.test.accuracy))
    counts = [pair.photos for pair in mistaken.worst]
    assert counts == sorted(counts, reverse=True)
    assert confusions.collect(predictions, 1).worst == mistaken.worst[:1]
    assert calibration.collect(predictions).ece == pytest.approx(
        find_promotion(run, mistaken.trial).tuned.test.ece, abs=1e-6
    )
    from features.dataset.index import load_index

    facts = dataset_section.collect(load_index(run))
    assert (facts.classes, sum(facts.splits.values()), facts.smallest, facts.largest) == (3, 24, 8, 8)
    assert facts.most_frequent == pytest.approx(1 / 3, abs=0.1)
    assert [(name, sum(splits.values())) for name, splits in facts.by_class] == [("a", 8), ("b", 8), ("c", 8)]


def test_rates_that_followed_the_loss_are_drawn_from_the_record(searched: Run) -> None:
    (leader,) = leaders(searched, 1)
    followed = replace(leader, config=leader.config.model_copy(update={"schedule": Plateau()}))
    recorded = load_curves(searched.workdir, leader.number)["learning_rate"].tolist()
    (rates,) = leader_curves.collect_rates(searched, [followed], 15)
    assert rates.name == f"trial {leader.number} (plateau)"
    assert rates.epochs == [0, 1, 1, 2, 2, 3, 3, 4]
    assert rates.rates == [rate for rate in recorded for _ in range(2)]
    (searched.workdir / "trials" / str(leader.number) / "curves.csv").unlink()
    assert leader_curves.collect_rates(searched, [followed], 15) == []


def test_trials_without_a_value_are_counted() -> None:
    import optuna

    study = optuna.create_study(direction="minimize")
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    study.add_trial(optuna.trial.create_trial(value=2.0))
    study.add_trial(optuna.trial.create_trial(value=3.0))
    found = history.collect(study, "val_loss")
    assert (found.numbers, found.values, found.best) == ([1, 2], [2.0, 3.0], [2.0, 2.0])
    assert found.counts == {"failed": 1, "complete": 2}


def test_importance_of_a_study_with_enough_trials() -> None:
    import optuna

    study = optuna.create_study(direction="maximize")
    unit = optuna.distributions.FloatDistribution(0, 1)
    for number in range(20):
        trial = optuna.trial.create_trial(
            params={"rate": number / 20, "noise": (number * 7 % 20) / 20},
            distributions=dict.fromkeys(("rate", "noise"), unit),
            value=number / 20,
        )
        study.add_trial(trial)
    found = importance.collect(study)
    assert isinstance(found, importance.Importance)
    assert found.names[0] == "rate"
    assert found.shares[0] > 0.8
    assert sum(found.shares) == pytest.approx(1)
    assert importance.draw(found).data[0].y[-1] == "rate"
