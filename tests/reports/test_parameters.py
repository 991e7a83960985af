"""The page's sections about hyperparameters: their numbers from small real studies, and their look in headless Chromium."""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from features.cache.views import Views
from reports.config import Run
from reports.study import (
    importance,
    parameter_plots,
    parameters,
    pruning,
)
from search.trial import TrialConfig

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
    assert parameters.collect(study_of(trials)) == (
        f"{trials} completed trial{'' if trials == 1 else 's'}; figures of parameters need at least 4."
    )


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


def test_a_choice_is_whole_on_as_many_lines_as_it_takes() -> None:
    long = "a_choice_of_a_hypermodel_that_has_a_long_name"
    study = study_of(8, **{"schedule.kind": (long, CategoricalDistribution([long, "b"]))})
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    drawn = parameter_plots.draw_slice(study, complete, "schedule.kind", "val_accuracy")
    assert "".join(drawn.layout.xaxis.ticktext[0].split("<br>")) in (long, "b")
    assert all(len(line) <= 11 for label in drawn.layout.xaxis.ticktext for line in label.split("<br>"))
    lines = parameter_plots.draw_parallel(study, complete, ["schedule.kind", "head.dropout"], "val_accuracy")
    assert long in [label.text.replace("<br>", "") for label in lines.layout.annotations]
