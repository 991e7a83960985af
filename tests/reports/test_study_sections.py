"""The page's sections about the leaders, pruning, learning curves and other studies, from small real studies."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from playwright.sync_api import Browser

from features.runtime.errors import UsageError
from reports.build import build
from reports.config import Run
from reports.section import LeftOutError
from reports.study import (
    leader_curves,
    leaders_table,
    pruning,
    side_by_side,
)
from search.leaderboard import leaders, load_study
from search.optimizers import LBFGS
from search.schedules.decay import StepDecay
from search.trial import HypermodelChoice, TrialConfig
from tests.fabricated import fabricate_confirmation
from tests.reports.test_page import open_page
from tests.reports.test_parameters import MARKUP


def test_prunings_are_counted_by_epoch_and_what_they_saved() -> None:
    study = optuna.create_study()
    for state, epochs in (("COMPLETE", 10), ("PRUNED", 1), ("PRUNED", 3), ("PRUNED", 1), ("FAIL", 2), ("FAIL", 0)):
        study.add_trial(optuna.trial.create_trial(
            state=optuna.trial.TrialState[state], value=1.0 if state == "COMPLETE" else None,
            intermediate_values={epoch: 0.1 * epoch for epoch in range(1, epochs + 1)},
        ))  # fmt: skip
    found = pruning.collect(study, 10)
    assert found.after == {1: 2, 3: 1}
    assert found.saved == pytest.approx((9 + 9 + 7) / 40)
    assert [(trial.number, trial.state, len(trial.values)) for trial in found.trials] == [
        (0, "complete", 10), (1, "pruned", 1), (2, "pruned", 3), (3, "pruned", 1), (4, "failed", 2),
    ]  # fmt: skip
    assert list(pruning.draw_pruned(found).data[0].y) == [2, 1]
    lines = pruning.draw_values(found.trials, "val_loss")
    assert {trace.name: len(trace.x) for trace in lines.data} == {"complete": 11, "failed": 3, "pruned": 8}
    study.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values={10: 0.5}, user_attrs={"first": "probe"}))
    with_probe = pruning.collect(study, 10)  # which is solved, so it trains for no epochs
    assert (with_probe.saved, with_probe.trials[-1].is_solved) == (found.saved, True)


def test_the_dots_of_a_linear_probe_are_explained(searched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for made in (pruning.section(searched), leader_curves.curves_section(searched)):
        assert "linear probe" not in made.text
    study, best = load_study(searched), leader_curves.ranked(searched)
    study.add_trial(optuna.trial.create_trial(value=0.5, intermediate_values={4: 0.5}, user_attrs={"first": "probe"}))
    text = pruning.section(searched).text
    assert text.endswith("The linear probe, which is solved, has one value, drawn at the last epoch.")
    probe = best.leaders[0].config.model_copy(update={"optimizer": LBFGS(folds=0)})
    with_probe = best._replace(leaders=[replace(best.leaders[0], config=probe), *best.leaders[1:]])
    monkeypatch.setattr(leader_curves, "ranked", lambda run: with_probe)
    made = leader_curves.curves_section(searched)
    assert made.text.endswith("The linear probe, which is solved, has one value, drawn at epoch 1.")
    (searched.workdir / "trials" / str(best.leaders[0].number) / "curves.csv").write_text("epoch\nx")
    damaged = leader_curves.curves_section(searched).text
    assert "Left out: " in damaged
    assert "has one value" not in damaged  # it is not drawn


def test_the_gap_at_the_best_epoch(searched: Run) -> None:
    curves = leader_curves.collect_curves(searched, leaders(searched))
    for curve, leader in zip(curves, leaders(searched), strict=True):
        assert curve.table["val_accuracy"][curve.best_epoch - 1] == pytest.approx(leader.value)
    table = pd.DataFrame({"epoch": [1, 2], "accuracy": [0.5, 0.9], "val_accuracy": [0.6, 0.7]})
    assert leader_curves.gaps(table).tolist() == pytest.approx([-10, 20])
    unknown = leader_curves.Curves("x", table.assign(accuracy=float("nan")), 1)
    rows = leader_curves.gap_table([leader_curves.Curves("trial 1", table, 2), unknown]).rows
    assert rows == [["trial 1", "2 of 2", "70.0 %", "90.0 %", "+20.0"], ["x", "1 of 2", "60.0 %", "unknown", "unknown"]]


def other_run(run: Run, folder: str, name: str, **search: Any) -> Path:
    """A run beside this one with a renamed copy of its study; returns its configuration file."""
    raw = yaml.safe_load(Path("headhunt.yaml").read_text())
    raw |= {"name": name, "workdir": "run", "search": {**raw["search"], **search}}
    file = Path(folder, "headhunt.yaml")
    shutil.copytree(run.workdir / "dataset", file.parent / "run" / "dataset")
    file.write_text(yaml.safe_dump(raw))
    storages = [f"sqlite:///{run.workdir}/study.db", f"sqlite:///{folder}/run/study.db"]
    optuna.copy_study(
        from_study_name=run.name, from_storage=storages[0], to_storage=storages[1], to_study_name=name
    )  # fmt: skip
    return file


def compared(run: Run, *paths: Path) -> Run:
    return run.model_copy(update={"reports": run.reports.model_copy(update={"compare": paths})})


def test_leaders_rates_and_curves_follow_the_confirmed_ranking(searched: Run) -> None:
    """The confirmation reverses the three best: the highest number has the highest mean."""
    first = [leader.number for leader in leaders(searched, searched.reports.leaders)]
    before = leaders_table.section(searched)
    assert [row[0] for row in before.tables[0].rows] == list(map(str, first))
    assert before.text.endswith(
        " Their values are optimistic, because trials and epochs were chosen on the validation photos."
    )
    fabricate_confirmation(searched, 3)
    order = [*sorted(first[:3], reverse=True), *first[3:]]
    table = leaders_table.section(searched)
    assert [row[0] for row in table.tables[0].rows] == list(map(str, order))
    assert table.tables[0].columns[:4] == ["trial", "val accuracy", "mean of 2 seeds", "top-5"]
    means = [row[2] for row in table.tables[0].rows]
    assert [float(mean[:-2]) for mean in means[:3]] == pytest.approx([number + 0.25 for number in order[:3]], abs=0.06)
    assert means[3:] == ["", ""]
    told = "Confirmed leaders come first, by their mean over 2 seeds, then the others in the search's order."
    curves = leader_curves.curves_section(searched)
    rates = leader_curves.rates_section(searched)
    assert all(told in section.text for section in (table, curves, rates))
    assert [row[0].split()[1] for row in curves.tables[0].rows] == list(map(str, order))
    assert [line.name.split()[1] for line in rates.figures["rates"].data] == list(map(str, order))


def test_studies_lanes_of(searched: Run) -> None:
    file = other_run(searched, "other", "second", sampler="random")  # as in the file now; the study was made with tpe
    run = compared(searched, file)
    own, other = side_by_side.collect(run)
    assert (own.name, other.name, own.sampler, other.sampler) == ("tiny", "second", "tpe", "tpe")
    values = [trial.value for trial in load_study(searched).trials]
    assert other.best == own.best == [max(values[: n + 1]) for n in range(6)]  # type: ignore[type-var]
    assert (own.trials, own.epochs) == ([1, 2, 3, 4, 5, 6], [4, 8, 12, 16, 20, 24])
    assert (own.counts, own.confirmed, own.test) == ({"complete": 6}, None, None)
    assert own.seconds is not None and own.seconds > 0
    assert own.photos == other.photos and len(own.photos or ()) > 0
    section = side_by_side.section(run)
    assert [name for name, _ in section.every_figure()] == ["studies-by-trials", "studies-by-epochs"]
    assert "validation photos" not in section.text
    assert "test is the accuracy of the best promoted model." in section.text


def test_other_objectives_and_other_photos_are_said_and_not_drawn_together(searched: Run) -> None:
    file = other_run(searched, "other", "tiny", objective="val_loss")
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{file.parent}/run/study.db")
    study.set_user_attr("identity", study.user_attrs["identity"] | {"objective": "val_loss"})
    index = file.parent / "run" / "dataset" / "index.csv"
    index.write_text(index.read_text().replace(",val,", ",test,"))
    section = side_by_side.section(compared(searched, file))
    names = [name for name, _ in section.every_figure()]
    assert names == [
        f"studies-by-{over}-{one}" for over in ("trials", "epochs") for one in ("val-accuracy", "val-loss")
    ]
    assert "different objectives" in section.text
    assert "validation photos differ" in section.text
    assert [row[0] for row in section.tables[0].rows] == ["tiny (this run)", "tiny (other/headhunt.yaml)"]


def test_a_study_that_is_not_there_is_named(searched: Run) -> None:
    with pytest.raises(LeftOutError, match=r"`reports\.compare`"):
        side_by_side.section(searched)
    file = other_run(searched, "other", "second")
    for path, message in (
        ("nowhere.yaml", r"reports\.compare: file not found: nowhere\.yaml; it must be"),
        ("other", r"file not found: other; it must be the headhunt\.yaml of another run"),
        ("headhunt.yaml", r"headhunt\.yaml is this run itself"),
    ):
        with pytest.raises(UsageError, match=message):
            side_by_side.collect(compared(searched, Path(path)))
    (file.parent / "run" / "study.db").unlink()
    with pytest.raises(UsageError, match=r"reports\.compare: other/headhunt\.yaml: there is no study 'second'"):
        side_by_side.collect(compared(searched, file))
    file.write_text("search: {sampler: tpx}")
    with pytest.raises(UsageError, match=r"invalid configuration other/headhunt\.yaml(.|\n)*received 'tpx'"):
        side_by_side.collect(compared(searched, file))


def test_names_and_choices_are_text_in_every_figure(searched: Run, browser: Browser) -> None:
    """A study with free-text parameters, like a hypermodel's, beside the fixture's study."""
    study = optuna.create_study(
        storage=f"sqlite:///{searched.workdir}/study.db", study_name=MARKUP, direction="maximize"
    )
    known, draw = leaders(searched)[0], random.Random(1)
    unit, rate = FloatDistribution(0, 1), FloatDistribution(1e-4, 1e-1, log=True)
    choice = CategoricalDistribution(["<b>a</b>", MARKUP])
    for number in range(10):
        params = {
            MARKUP: draw.random(),
            "<i>rate</i>": 10 ** draw.uniform(-4, -1),
            "choice": choice.choices[number % 2],
        }
        config = TrialConfig(hypermodel=HypermodelChoice(function=MARKUP, values=params))
        study.add_trial(optuna.trial.create_trial(
            value=draw.random(), params=params, intermediate_values={1: 0.1, 2: 0.2},
            distributions={MARKUP: unit, "<i>rate</i>": rate, "choice": choice},
            user_attrs={"config": config.model_dump_json(), "top5": 1.0, "cache": known.cache_key},
        ))  # fmt: skip
    run = compared(searched.model_copy(update={"name": MARKUP}), Path("headhunt.yaml"))
    result = build(run)
    assert {"studies", "pruning", "importance", "parameters", "workers"} <= set(result["sections"])
    page, noise = open_page(browser, Path(result["report"]), 390)
    assert noise == []
    assert page.title() == f"{MARKUP} · Headhunt"
    section = page.locator("section#parameters")
    titles = section.locator(".xtitle").all_text_contents()
    assert set(titles) == {MARKUP, "<i>rate</i>", "choice"}
    assert "<b>a</b>" in section.locator(".xtick text").all_text_contents()
    assert section.locator(".js-plotly-plot").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    overflow = "[...document.querySelectorAll('.js-plotly-plot')].map(p => p.getBoundingClientRect().right)"
    assert max(page.evaluate(overflow)) <= 390
    page.close()


def test_a_schedule_of_steps_is_drawn_as_steps_at_the_very_rates(searched: Run) -> None:
    """One point per change of the rate, at its step, and one for the end."""
    (leader,) = leaders(searched, 1)
    schedule = StepDecay(learning_rate=1e-2, factor=0.1, every_epochs=3)
    stepped = replace(
        leader, config=leader.config.model_copy(update={"schedule": schedule, "epochs": 9, "batch_size": 4})
    )
    (rates,) = leader_curves.collect_rates(searched, [stepped], 4000)
    assert rates.epochs == [0, 3, 6, 9]
    assert rates.rates == pytest.approx([1e-2, 1e-3, 1e-4, 1e-4])
    drawn = leader_curves.draw_rates([rates])
    assert {line.line.shape for line in drawn.data} == {"hv"}
    assert drawn.layout.xaxis.dtick == 2
