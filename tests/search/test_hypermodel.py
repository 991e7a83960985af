"""KerasTuner's build(hp) functions: their spaces, and studies of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml

from features.cache.views import Views
from features.run_file import load
from features.runtime.errors import UsageError
from reports.config import Run
from reports.section import LeftOutError
from reports.study.leader_curves import rates_section as _rates
from reports.study.leaders_table import section as _leaderboard
from search.config import SearchRun
from search.driver.worklog import load_work
from search.hypermodels.space import HypermodelSpace
from search.leaderboard import leaders
from search.records import load_curves, load_weights
from search.samplers.choice import make_sampler
from search.samplers.oracles import allotment
from tests.conftest import run_headhunt
from tests.forks import run_python

optuna.logging.set_verbosity(optuna.logging.WARNING)

MODELS = """
import keras

def build(hp):
    x = inputs = keras.Input((6,))
    kind = hp.Choice("kind", ["linear", "mlp"])
    with hp.conditional_scope("kind", ["mlp"]):
        if kind == "mlp":
            for layer in range(hp.Int("layers", 1, 2)):
                x = keras.layers.Dense(hp.Int(f"units_{layer}", 4, 8, step=4), activation=hp.get("activation_name"))(x)
            if hp.Boolean("dropout"):
                x = keras.layers.Dropout(hp.Float("rate", 0.1, 0.5, step=0.2))(x)
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(x))
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", step=10)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model

def named(hp):
    hp.Fixed("activation_name", "relu")
    return build(hp)

def one_hot(hp):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    model.compile(keras.optimizers.SGD(rate), keras.losses.CategoricalCrossentropy(from_logits=True))
    return model

def scopes(hp):
    hp.Choice("kind", ["a", "b"])
    with hp.conditional_scope("kind", ["a"]):
        hp.Choice("size", [1, 2])
    with hp.conditional_scope("kind", ["b"]):
        hp.Choice("size", [3, 4, 5])
    return compiled()

def compiled(**settings):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile(loss="sparse_categorical_crossentropy", **settings)
    return model

def reverse(hp):
    hp.Float("momentum", 0.1, 0.9, sampling="reverse_log")

def not_compiled(hp):
    hp.Choice("kind", ["a", "b"])
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])

def wrong_shape(hp):
    hp.Choice("kind", ["a", "b"])
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3)])
    model.compile(loss="sparse_categorical_crossentropy")
    return model

def wrong_loss(hp):
    hp.Choice("kind", ["a", "b"])
    return compiled(loss_weights=["accuracy"])

def broken(hp):
    raise ZeroDivisionError("no " + hp.Choice("kind", ["a", "b"]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with a module of hypermodels, unloaded afterwards."""
    (tmp_path / "hypermodels.py").write_text(MODELS)
    yield tmp_path
    sys.modules.pop("hypermodels", None)
    sys.path.remove(str(tmp_path)) if str(tmp_path) in sys.path else None


def draw(space: HypermodelSpace, count: int, sampler: str) -> list[dict[str, Any]]:
    study = optuna.create_study()
    for number in range(count):
        study.sampler = make_sampler(sampler, space, 0, number, 9)
        trial = study.ask()
        config = space.suggest(trial, Views(), 9, 0)
        assert config.hypermodel is not None
        assert list(config.hypermodel.values.values()) == list(trial.params.values())
        study.tell(trial, float(number % 3))
    return [trial.params for trial in study.trials]


def test_a_space_is_discovered_with_its_conditions(folder: Path) -> None:
    """Those declared by `conditional_scope`, and those that follow from the function's own `if` and `range`."""
    space = HypermodelSpace("hypermodels:named", folder)
    mlp = ("kind", ("mlp",))
    assert {parameter.name: (list(parameter.values()), parameter.when) for parameter in space.parameters()} == {
        "kind": (["linear", "mlp"], ()),
        "learning_rate": ([0.001, 0.01, 0.1], ()),
        "layers": ([1, 2], (mlp,)),
        "units_0": ([4, 8], (mlp,)),
        "units_1": ([4, 8], (mlp, ("layers", (2,)))),
        "dropout": ([False, True], (mlp,)),
        "rate": ([0.1, 0.3, 0.5], (mlp, ("dropout", (True,)))),
    }
    assert space.size() == 3 * (1 + (2 + 2 * 2) * (1 + 3))


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "grid", "keras_tuner.random", "keras_tuner.hyperband"])
def test_any_sampler_draws_what_the_function_asks_for(folder: Path, sampler: str) -> None:
    space = HypermodelSpace("hypermodels:named", folder)
    drawn = draw(space, 24, sampler)
    for params in drawn:
        assert set(params) == {one.name for one in space.parameters() if one.exists(params)}
    assert {params["kind"] for params in drawn} == {"linear", "mlp"}
    if sampler == "grid":
        assert len({str(sorted(params.items())) for params in drawn}) == 24


def test_a_name_in_two_scopes_is_two_parameters(folder: Path) -> None:
    space = HypermodelSpace("hypermodels:scopes", folder)
    assert {one.name: list(one.values()) for one in space.parameters()} == {
        "kind": ["a", "b"],
        "size": [1, 2],
        "size [kind=b]": [3, 4, 5],
    }
    assert space.size() == 5
    drawn = [tuple(sorted(map(str, params.values()))) for params in draw(space, 5, "grid")]
    assert sorted(drawn) == [("1", "a"), ("2", "a"), ("3", "b"), ("4", "b"), ("5", "b")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hypermodels", "search.hypermodel: received 'hypermodels'; it must be module:function"),
        ("../hypermodels:build", "it must be module:function"),
        ("hypermodel:build", "there is no module 'hypermodel' in "),
        ("hypermodel:build", "Did you mean 'hypermodels'?"),
        ("hypermodels:biuld", "has no function 'biuld'. Did you mean 'build'?"),
        (
            "hypermodels:reverse",
            "momentum has sampling='reverse_log', which only KerasTuner supports. Use 'log' or 'linear'.",
        ),
        (
            "hypermodels:broken",
            "hypermodels:broken failed with kind='a': ZeroDivisionError: no a. None of the combinations",
        ),
        (
            "hypermodels:not_compiled",
            "must return a compiled keras.Model, but returned a model that is not compiled with",
        ),
        (
            "hypermodels:keras",
            "it must be a function build(hp), a keras_tuner.HyperModel class or an instance of one.",
        ),
    ],
)
def test_functions_that_cannot_be_used(folder: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        HypermodelSpace(name, folder)
    assert message in str(caught.value)


def test_a_space_and_a_hypermodel_are_one_too_many(tmp_path: Path) -> None:
    file = tmp_path / "headhunt.yaml"
    file.write_text("dataset: {kind: toy_cars}\nsearch: {hypermodel: 'models:build', space: {batch_size: 32}}\n")
    with pytest.raises(UsageError, match=r"search: both space and hypermodel are set.* Remove one of them"):
        load(SearchRun, file)


@pytest.fixture
def study_folder(searched: Run) -> Path:
    """A folder with a cache, hypermodels.py and no study; the working directory."""
    Path("hypermodels.py").write_text(MODELS)
    raw = yaml.safe_load(Path("headhunt.yaml").read_text())
    del raw["search"]["space"]
    raw["search"]["hypermodel"] = "hypermodels:named"
    Path("headhunt.yaml").write_text(yaml.safe_dump(raw))
    Path("run/study.db").unlink()
    return Path.cwd()


def trials() -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="tiny", storage="sqlite:///run/study.db").trials


def test_dry_run_shows_the_space_of_a_hypermodel(study_folder: Path) -> None:
    done = run_headhunt(study_folder, "search", "run", "--dry-run", "--json")
    shown = json.loads(done.stdout.splitlines()[-1])
    assert shown["size"] == 75
    assert len(shown["samples"]) == 10
    assert shown["space"]["units_1"]["when"] == {"kind": ["mlp"], "layers": [2]}
    assert "Size: 75. 10 samples:" in done.stderr


def test_a_hypermodels_study_has_curves_weights_and_leaders(study_folder: Path) -> None:
    """Searched by KerasTuner's Hyperband: a promoted trial repeats the epochs of the one it continues."""
    body = (
        "import json, sys\nfrom pathlib import Path\nfrom features.run_file import load\nfrom search.config import SearchRun\n"
        "from search.study import run_search\n"
        "options = ['search.sampler=keras_tuner.hyperband', 'search.pruner=none', 'search.trials=6']\n"
        "run_search(load(SearchRun, Path('headhunt.yaml'), options))\n"
        "from search.confirm.rerun import confirm\n"
        "print(json.dumps(confirm(load(SearchRun, Path('headhunt.yaml'), options), 2, 2)))\n"
        "assert 'keras' in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    done = run_python(body)
    assert done.returncode == 0, done.stderr
    run = Run.model_validate(yaml.safe_load(Path("headhunt.yaml").read_text()))
    assert len(leaders(run)) == 6
    work = load_work(run.workdir)  # files of the search only, without a confirmation's
    assert (sum(row.trials for row in work), sum(row.ended for row in work), {row.workers for row in work}) == (
        6,
        6,
        {1},
    )
    assert sum(row.epochs for row in work) == sum(len(trial.intermediate_values) for trial in trials())
    confirmed = json.loads(done.stdout.splitlines()[-1])
    assert sorted(row["number"] for row in confirmed["confirmed"]) == sorted(each.number for each in leaders(run, 2))
    assert confirmed["trained"] + confirmed["reused"] == 4
    assert all(
        len(row["values"]) == 2 and row["mean"] == pytest.approx(sum(row["values"]) / 2)
        for row in confirmed["confirmed"]
    )
    for trial in trials():
        given = allotment(trial)
        assert given is not None
        curves = load_curves(Path("run"), trial.number)
        assert curves["epoch"].tolist() == list(range(1, given.epochs + 1))
        assert curves[["loss", "accuracy", "val_loss", "val_accuracy"]].notna().all(axis=None)
        assert curves["val_accuracy"].max() == pytest.approx(trial.value)
        weights = load_weights(Path("run"), trial.number)
        assert weights[max(name for name in weights if name.endswith("kernel"))].shape[-1] in (3, 4, 8)
        if given.continues is not None:
            before = load_curves(Path("run"), given.origin)
            pd.testing.assert_frame_equal(curves.iloc[: len(before)], before)
    config = yaml.safe_load(Path("run/trials/0/trial.yaml").read_text())
    assert config["hypermodel"] == {"function": "hypermodels:named", "values": trials()[0].params}
    assert not {"head", "schedule", "optimizer"} & set(config)
    assert _leaderboard(run).tables[0].columns[-1] == "hyperparameters"
    with pytest.raises(LeftOutError, match="a hypermodel, which sets their learning rates itself"):
        _rates(run)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["auto", "ray"])
def test_rungs_and_workers_give_a_hypermodels_trials_the_same_curves(study_folder: Path, executor: str) -> None:
    """A pruner stops training at rungs, where a trial moves between processes; one-hot labels, logits."""
    common = ["--trials", "4", "--set", "search.hypermodel=hypermodels:one_hot", "--set", "search.sampler=random"]
    run_headhunt(study_folder, "search", "run", *common)
    whole = [load_curves(Path("run"), number).drop(columns="accuracy") for number in range(4)]
    Path("run/study.db").unlink()
    moved = ["--executor", executor, "--workers", "2", "--set", "search.pruner=successive_halving"]
    run_headhunt(study_folder, "search", "run", *common, *moved)
    for number in range(4):
        curves = load_curves(Path("run"), number).drop(columns="accuracy")
        pd.testing.assert_frame_equal(curves, whole[number].iloc[: len(curves)])
    assert max(len(load_curves(Path("run"), number)) for number in range(4)) == 4
