"""The page's sections about the search: their numbers from small real studies, and their look in headless Chromium."""

from __future__ import annotations

import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from playwright.sync_api import Browser

from features.cache.views import Views
from features.runtime.errors import UsageError
from reports.build import build
from reports.config import Run
from reports.section import LeftOutError
from reports.study import (
    history,
    importance,
    leader_curves,
    leaders_table,
    parameter_plots,
    parameters,
    pruning,
    side_by_side,
    workers,
)
from reports.style import log_ticks, rate_axis, shortened, whole_ticks
from search.driver.worklog import Work, load_work
from search.leaderboard import leaders, load_study
from search.schedules.decay import StepDecay
from search.trial import HypermodelChoice, TrialConfig
from tests.fabricated import fabricate_confirmation
from tests.reports.test_page import open_page

RATE, DROPOUT = FloatDistribution(1e-5, 1e-2, log=True), FloatDistribution(0, 0.6)
PAIR = ("head.dropout", "schedule.learning_rate")
KIND, LAYERS = CategoricalDistribution(["constant", "step_decay"]), IntDistribution(0, 3)
MARKUP = "<script>document.title=1</script>"


def study_of(trials: int, direction: str = "maximize", **changed: Any) -> optuna.Study:
    """A study of completed trials that drew rate, dropout, kind, layers, and, with step_decay, a factor; plus a pruned and a
    failed one. Trial n has the value n."""
    study = optuna.create_study(direction=direction)
    draw = random.Random(0)
    for number in range(trials):
        params: dict[str, Any] = {
            "schedule.learning_rate": 10 ** draw.uniform(-5, -2),
            "head.dropout": draw.uniform(0, 0.6),
            "schedule.kind": KIND.choices[number % 2],
            "head.layers": number % 3,
            "batch_size": 32,
        }
        kinds = {"schedule.learning_rate": RATE, "head.dropout": DROPOUT, "schedule.kind": KIND, "head.layers": LAYERS}
        distributions: dict[str, Any] = {**kinds, "batch_size": CategoricalDistribution([32])}
        if number % 2:
            params["schedule.factor"], distributions["schedule.factor"] = (
                draw.uniform(0.1, 0.9),
                FloatDistribution(0.1, 0.9),
            )
        params |= {name: value for name, (value, _) in changed.items()}
        distributions |= {name: distribution for name, (_, distribution) in changed.items()}
        values = {1: number / 2, 2: float(number)}
        study.add_trial(optuna.trial.create_trial(
            value=float(number), params=params, distributions=distributions, intermediate_values=values
        ))  # fmt: skip
    for state in (optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL):
        study.add_trial(optuna.trial.create_trial(state=state, intermediate_values={1: 0.5}))
    return study


def shown_of(study: optuna.Study) -> parameters.Shown:
    shown = parameters.collect(study)
    assert isinstance(shown, parameters.Shown)
    return shown


def test_parameters_are_those_that_vary_and_trials_those_that_ran_to_their_end() -> None:
    shown = shown_of(study_of(12))
    assert [trial.number for trial in shown.trials] == list(range(12))
    assert set(shown.names) == {
        "schedule.learning_rate",
        "head.dropout",
        "schedule.kind",
        "head.layers",
        "schedule.factor",
    }
    assert (shown.names[-1], shown.varied, shown.ranked) == ("schedule.factor", 5, True)  # not every trial has it
    assert len(shown.pair_trials) == 12
    assert shown.still == []  # a batch size with one choice is not drawn
    assert [trial.number for trial in shown_of(study_of(5, "minimize")).trials] == [4, 3, 2, 1, 0]
    assert not shown_of(study_of(5)).ranked


def test_the_importance_is_of_what_drawn_trials_have_in_common() -> None:
    """The value is the learning rate's decade; a first trial with only two parameters changes nothing."""
    study = optuna.create_study(direction="maximize")
    draw = random.Random(0)
    kinds: dict[str, Any] = {"schedule.learning_rate": RATE, "head.dropout": DROPOUT, "head.layers": LAYERS}
    for number in range(20):
        params = {
            "schedule.learning_rate": 10 ** draw.uniform(-5, -2), "head.dropout": draw.uniform(0, 0.6), "head.layers": number % 3,
        }  # fmt: skip
        value = math.log10(params["schedule.learning_rate"])
        study.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=kinds))
    alone = importance.collect(study)
    assert isinstance(alone, importance.Importance)
    assert (alone.names[0], alone.trials) == ("schedule.learning_rate", 20)
    assert set(alone.names) == set(kinds)
    few = {"head.dropout": 0.1, "head.layers": 0}
    study.add_trial(optuna.trial.create_trial(
        value=0.0, params=few, distributions={name: kinds[name] for name in few}, user_attrs={"first": "probe"}
    ))  # fmt: skip
    assert importance.collect(study) == alone


def test_what_did_not_vary_and_trials_that_were_not_drawn_are_told_apart(
    searched: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that drew more copies than its policy has is shown with the copies it used."""
    copies = IntDistribution(1, 4)
    study = study_of(5, **{"head.dropout": (0.5, DROPOUT), "views.copies": (4, copies)})
    config = TrialConfig(views=Views(copies=2)).model_dump_json()
    study.add_trial(optuna.trial.create_trial(
        value=9.0, params={"head.layers": 0, "views.copies": 4}, distributions={"head.layers": LAYERS, "views.copies": copies},
        user_attrs={"first": "notebook", "config": config},
    ))  # fmt: skip
    shown = shown_of(study)
    assert (shown.still, "views.copies" in shown.names) == (["head.dropout"], True)
    assert shown.trials[-1].params["views.copies"] == 2
    assert study.trials[-1].params["views.copies"] == 4
    monkeypatch.setattr(parameters, "load_study", lambda run: study)
    text = parameters.section(searched).text
    assert text.startswith("The parameters of the 5 completed sampled trials, ")
    assert "1 first trial was not sampled, and appear" in text
    assert "5 of the 6 parameters that trials drew are shown" in text
    assert text.endswith(" Among the completed trials, head.dropout did not vary.")


@pytest.mark.parametrize("trials", [0, 1, 3])
def test_too_few_trials_have_no_figures_of_parameters(trials: int) -> None:
    assert parameters.collect(study_of(trials)) == f"{trials} completed trials; figures of parameters need at least 4."


def test_a_study_in_which_nothing_varies_says_so() -> None:
    study = optuna.create_study()
    for _ in range(5):
        study.add_trial(
            optuna.trial.create_trial(value=1.0, params={"x": 1}, distributions={"x": IntDistribution(0, 2)})
        )
    assert parameters.collect(study) == "no parameter has more than one value among the completed trials."


def test_the_contour_takes_two_numeric_parameters_that_trials_have_together() -> None:
    study = study_of(12, **{"head.dropout": (0.5, DROPOUT)})
    assert set(shown_of(study).pair or ()) == {"schedule.learning_rate", "head.layers"}
    one_rate = {"schedule.learning_rate": (1e-3, RATE), "head.layers": (1, LAYERS)}
    assert (
        shown_of(study_of(12, **one_rate)).pair is None
    )  # a factor that only half of the trials have has no known importance
    assert shown_of(study_of(6)).pair is None  # with so few trials, none has


def test_the_contour_is_of_the_two_numeric_parameters_that_matter_most() -> None:
    """The value is made of layers and the rate's decade; dropout is drawn too but has no effect."""
    study, draw = optuna.create_study(direction="maximize"), random.Random(0)
    kinds: dict[str, Any] = {
        "head.dropout": DROPOUT, "schedule.learning_rate": RATE, "head.layers": LAYERS, "schedule.kind": KIND,
    }  # fmt: skip
    for number in range(40):
        params = {
            "head.dropout": draw.uniform(0, 0.6), "schedule.learning_rate": 10 ** draw.uniform(-5, -2),
            "head.layers": number % 4, "schedule.kind": draw.choice(KIND.choices),
        }  # fmt: skip
        value = params["head.layers"] + math.log10(params["schedule.learning_rate"])
        study.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=kinds))
    shown = shown_of(study)
    assert set(shown.pair or ()) == {"schedule.learning_rate", "head.layers"}
    assert sum(shown.shares.values()) == pytest.approx(1)
    assert shown.shares["head.dropout"] < 0.1


def test_no_contour_is_drawn_of_parameters_that_explain_next_to_nothing() -> None:
    study = study_of(12)
    small = shown_of(study)._replace(pair=PAIR, shares={"schedule.kind": 0.96, PAIR[0]: 0.018, PAIR[1]: 0.022})
    block = parameters._contour(study, small, "val_accuracy")
    assert block.figures == {}
    assert block.text == (
        "No contour: of the two most important numeric parameters, head.dropout and schedule.learning_rate, head.dropout "
        "explains 1.8 % of the variance. A contour needs at least 5 %."
    )
    enough = small._replace(shares={"schedule.kind": 0.9, PAIR[0]: 0.05, PAIR[1]: 0.05})
    assert list(parameters._contour(study, enough, "val_accuracy").figures) == ["contour"]


def test_no_axis_of_the_parallel_coordinates_has_a_label_twice() -> None:
    """Values that share their first digits, on linear and logarithmic axes, on axes that some trials miss, and of choices."""
    study, kinds = optuna.create_study(direction="maximize"), {
        "close": FloatDistribution(0, 1), "log": FloatDistribution(1e-5, 1, log=True), "missing": FloatDistribution(0, 1),
        "choice": CategoricalDistribution([0.2, 0.2004]), "units": IntDistribution(1, 4096),
    }  # fmt: skip
    for number in range(5):
        params = {
            "close": 0.2 + 1e-4 * number, "log": 1e-3 + 1e-7 * number, "missing": 0.5 + 4e-6 * number,
            "choice": (0.2, 0.2004)[number % 2], "units": 512 * (number + 1),
        }  # fmt: skip
        if number == 0:
            del params["missing"]
        distributions = {name: kinds[name] for name in params}
        value = 0.98765 + 1.6e-5 * number
        study.add_trial(optuna.trial.create_trial(value=value, params=params, distributions=distributions))
    drawn = parameter_plots.draw_parallel(study, study.get_trials(), list(kinds), "val_accuracy")
    labels: dict[str, list[str]] = {}
    for tick in drawn.layout.annotations:
        labels.setdefault(drawn.layout.xaxis.ticktext[int(tick.x)], []).append(tick.text)
    assert labels == {
        "val accuracy": ["98.765%", "98.767%", "98.768%", "98.77%", "98.771%"],
        "choice": ["0.2", "0.2004"],
        "close": ["0.2", "0.2001", "0.2002", "0.2003", "0.2004"],
        "log": ["0.001", "0.0010004"],
        "missing": ["None", "0.500004", "0.500007", "0.50001", "0.500013", "0.500016"],
        "units": ["512", "1024", "1536", "2048", "2560"],
    }


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["short", "exactly ten"], ["short", "exactly t…"]),
        (["Audi A4 Sedan 2010", "Audi A4 Sedan 2012"], ["Audi …2010", "Audi …2012"]),
        (["abcdefgh 1 stuvwxyz", "abcdefgh 2 stuvwxyz"], ["abcdefgh 1 stuvwxyz", "abcdefgh 2 stuvwxyz"]),
        (["the same one", "the same one"], ["the same …", "the same …"]),
    ],
)
def test_names_are_cut_so_that_they_can_be_told_apart(names: list[str], labels: list[str]) -> None:
    assert shortened(names, 10) == labels


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_optunas_plots_are_as_wide_as_the_page_and_without_titles(objective: str) -> None:
    study = study_of(12, "minimize" if objective == "val_loss" else "maximize")
    shown = shown_of(study)
    kind = parameter_plots.draw_slice(study, shown.trials, "schedule.kind", objective)
    assert list(kind.layout.xaxis.categoryarray) == ["constant", "step_decay"]
    assert set(kind.data[0].x) == {"constant", "step_decay"}
    rate = parameter_plots.draw_slice(study, shown.trials, "schedule.learning_rate", objective)
    assert (rate.layout.xaxis.type, len(rate.data[0].x)) == ("log", 12)
    assert len(parameter_plots.draw_slice(study, shown.trials, "schedule.factor", objective).data[0].x) == 6
    lines = parameter_plots.draw_parallel(study, shown.trials, shown.names, objective)
    assert list(lines.layout.xaxis.ticktext) == [objective.replace("_", " "), *sorted(shown.names)]
    assert sum(trace.mode == "lines" for trace in lines.data) == 12
    contour, rounded = parameter_plots.draw_contour(study, shown.pair_trials, PAIR, objective)
    assert (contour.layout.yaxis.type, rounded, len(contour.data[1].x)) == ("log", False, 12)
    for drawn in (kind, rate, lines, contour):
        assert (drawn.layout.title.text, drawn.layout.width, drawn.layout.dragmode) == (None, None, False)


def test_a_thousand_trials_are_thinned_or_rounded() -> None:
    study = study_of(1000)
    shown = shown_of_without_importance(study)
    lines = parameters._parallel(study, shown, "val_accuracy")
    assert "Of the 1000 trials 300 are shown" in lines.text
    assert len(lines.figures["parallel-coordinates"].to_json()) < 1e6
    block = parameters._contour(study, shown, "val_accuracy")
    assert "rounded to 40 steps" in block.text
    contour = block.figures["contour"]
    assert len(contour.data[0].x) <= parameter_plots.STEPS + 2
    assert len(contour.to_json()) < 3e5
    values = pruning.thinned(pruning.collect(study, 2).trials)
    assert (len(values), values[0].number, values[-1].number) == (300, 0, 1001)


def shown_of_without_importance(study: optuna.Study) -> parameters.Shown:
    """What is shown of a study with many trials, whose importances take seconds to compute."""
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    names = ["head.dropout", "schedule.kind", "schedule.learning_rate"]
    return parameters.Shown(complete, names, 3, [], dict.fromkeys(PAIR, 0.5), PAIR, complete)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1e-4, 1e-2, ["1e-4", "3e-4", "1e-3", "3e-3", "1e-2"]),
        (2e-6, 8e-3, ["1e-5", "1e-4", "1e-3", "1e-2"]),
        (1e-12, 1, ["1e-12", "1e-9", "1e-6", "1e-3", "1e0"]),
        (20, 70, ["2e1", "3e1", "5e1", "1e2"]),
        (6e-3, 6e-3, ["5e-3"]),
    ],
)
def test_a_logarithmic_axis_has_few_labels(low: float, high: float, labels: list[str]) -> None:
    ticks = log_ticks(low, high)
    assert ticks["ticktext"] == labels
    assert ticks["tickvals"] == pytest.approx([float(label) for label in labels])


@pytest.mark.parametrize(
    ("rates", "ends", "labels"),
    [
        ([3e-3, 3e-3], [9.5e-4, 9.5e-3], ["1e-3", "3e-3", "1e-2"]),
        ([1e-2, 0.0, math.nan, 1e-9], [1e-6, 1e-2], ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2"]),
        ([], [1e-6, 1e-2], ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2"]),
    ],
    ids=["constant", "down to nothing", "none"],
)
def test_an_axis_of_rates_spans_one_decade_to_four(rates: list[float], ends: list[float], labels: list[str]) -> None:
    axis = rate_axis(rates)
    assert 10 ** np.array(axis["range"]) == pytest.approx([ends[0] / 10**0.2, ends[1] * 10**0.2], rel=0.01)
    assert axis["ticktext"] == labels


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


def test_a_worker_is_a_row_and_the_time_between_sessions_is_left_out() -> None:
    def task(session: float, worker: str, started: float, seconds: float, ended: int = 1) -> Work:
        return Work(session, 2, worker, started, seconds, 2, ended, 8)

    work = [
        task(1000, "a/1/thread_0", 1010, 20), task(1000, "a/1/thread_1", 1010, 10), task(1000, "a/1/thread_1", 1020, 20, 0),
        task(9000, "a/2/thread_1", 9000, 30), task(9000, "b/7", 9010, 20),
    ]  # fmt: skip
    found = workers.collect(work)
    first, second = found.sessions
    assert (first.seconds, first.busy, first.trials, first.epochs) == (40, pytest.approx(50 / 80), 2, 24)
    assert (second.seconds, second.busy) == (30, pytest.approx(50 / 60))
    assert found.starts == [0, 40]
    assert (found.busy, found.trials_per_minute) == (pytest.approx(100 / 140), pytest.approx(60 * 4 / 70))
    assert found.rows == ["a 1", "a 2", "b 1"]
    assert [(bar.row, bar.start) for bar in found.bars] == [
        ("a 1", 10),
        ("a 2", 10),
        ("a 2", 20),
        ("a 1", 40),
        ("b 1", 50),
    ]


def test_processes_that_never_work_at_once_share_a_row() -> None:
    work = [Work(0, 1, f"a/{number}", 10.0 * number, 9, 1, 1, 1) for number in range(20)]
    assert workers.collect(work).rows == ["a 1"]


def test_many_bars_are_joined_where_the_gaps_are_smallest() -> None:
    work = [Work(0, 1, "a/1", 10.0 * number + (number > 3), 9, 1, 1, 2) for number in range(8)]
    bars = workers.joined(workers.collect(work).bars, 2)
    assert [(bar.start, bar.seconds, bar.tasks, bar.trials, bar.epochs) for bar in bars] == [
        (0, 39, 4, 4, 8),
        (41, 39, 4, 4, 8),
    ]
    assert len(workers.joined(workers.collect(work).bars, 8)) == 8


def test_the_workers_of_a_real_search(searched: Run) -> None:
    found = workers.collect(load_work(searched.workdir))
    assert 0 < found.busy <= 1
    assert (sum(session.trials for session in found.sessions), len(found.rows) <= 2) == (6, True)
    (searched.workdir / "trials" / "work.csv").unlink()
    with pytest.raises(LeftOutError, match=r"The workers' log .*`headhunt search run`"):
        workers.section(searched)


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
    with pytest.raises(UsageError, match=r"headhunt\.yaml is not valid(.|\n)*received 'tpx'"):
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


@pytest.mark.parametrize(
    ("values", "step"), [([1, 2], 1), ([0, 6], 1), ([1, 8], 2), ([0, 30], 5), ([None, 0, 1000], 200), ([], 1)]
)
def test_ticks_of_epochs_are_whole_numbers(values: list[float | None], step: int) -> None:
    assert whole_ticks(values) == {"tick0": 0, "dtick": step}


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


def test_a_choice_is_whole_on_as_many_lines_as_it_takes() -> None:
    long = "a_choice_of_a_hypermodel_that_has_a_long_name"
    study = study_of(8, **{"schedule.kind": (long, CategoricalDistribution([long, "b"]))})
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    drawn = parameter_plots.draw_slice(study, complete, "schedule.kind", "val_accuracy")
    assert "".join(drawn.layout.xaxis.ticktext[0].split("<br>")) in (long, "b")
    assert all(len(line) <= 11 for label in drawn.layout.xaxis.ticktext for line in label.split("<br>"))
    lines = parameter_plots.draw_parallel(study, complete, ["schedule.kind", "head.dropout"], "val_accuracy")
    assert long in [label.text.replace("<br>", "") for label in lines.layout.annotations]


def test_an_axis_of_shares_ends_at_0_and_100_percent() -> None:
    found = history.History("val_accuracy", [0, 1], [0.0, 0.0], ["complete"] * 2, [0.0, 0.0], {"complete": 2})
    axis = history.draw(found).layout.yaxis
    assert (axis.tickformat, axis.autorangeoptions.clipmin, axis.autorangeoptions.clipmax) == ("~%", 0, 1)
