"""Every form of build(hp) that KerasTuner accepts, as a study; what fails a single trial; and what counts as another function."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest

from features.cache.views import Views
from features.runtime.errors import UsageError
from reports.config import Run
from search.hypermodels.function import CombinationError
from search.hypermodels.model import as_head, build_model, choose_label_form
from search.hypermodels.space import HypermodelSpace
from search.trial import HypermodelChoice
from tests.search.hypermodel_folder import study_of

KINDS = """
import keras
import keras_tuner
import numpy as np
from keras import layers, losses

import parts
from parts import FACTOR

def head(units, loss="sparse_categorical_crossentropy", metrics=("accuracy",), last="softmax"):
    features = keras.Input((6,))
    hidden = layers.Dense(units, activation=parts.ACTIVATION)(features)
    model = keras.Model(features, layers.Dense(3, activation=last, name="classes")(hidden))
    model.compile("adam", loss, metrics=list(metrics))
    return model

def plain(hp):
    return head(hp.Choice("units", [4, 8]))

def no_input(hp):
    model = keras.Sequential([layers.Dense(hp.Choice("units", [4, 8])), layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["acc"])
    return model

class Own(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.hidden, self.norm = layers.Dense(units, "relu"), layers.BatchNormalization()
        self.last = layers.Dense(3)

    def call(self, x):
        return self.last(self.norm(self.hidden(x)))

def subclassed(hp):
    model = Own(hp.Choice("units", [4, 8]))
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model

def in_list(hp):
    return head(hp.Choice("units", [4, 8]), ["sparse_categorical_crossentropy"])

def in_dict(hp):
    return head(hp.Choice("units", [4, 8]), {"classes": "sparse_categorical_crossentropy"})

def renamed(hp):
    return head(hp.Choice("units", [4, 8]), losses.SparseCategoricalCrossentropy(name="mine"),
                [keras.metrics.SparseCategoricalAccuracy(name="right")])

def own_loss(hp):
    return head(hp.Choice("units", [4, 8]), lambda y, p: losses.sparse_categorical_crossentropy(y, p))

def gathers(hp):
    def loss(y, p):  # accepts one-hot rows, too, and says nothing with them
        return -keras.ops.log(keras.ops.take_along_axis(p, keras.ops.cast(y, "int32"), axis=1) + 1e-7)
    return head(hp.Choice("units", [4, 8]), loss, ["sparse_categorical_accuracy"])

def lazy(hp):
    from late.shapes import UNITS
    return head(UNITS * hp.Choice("factor", [FACTOR]))

def one_hot(hp):
    return head(hp.Choice("units", [4, 8]), losses.CategoricalFocalCrossentropy(name="sparse"))

def sigmoids(hp):
    return head(hp.Choice("units", [4, 8]), "binary_crossentropy", last="sigmoid")

class Head(keras_tuner.HyperModel):
    def build(self, hp):
        return plain(hp)

instance = Head()

class Needing(keras_tuner.HyperModel):
    def __init__(self, classes):
        super().__init__()

class Fitting(Head):
    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, **kwargs)

def raises(hp):
    units, factor = hp.Choice("units", [4, 8]), hp.Choice("factor", [1, 2])
    if units * factor == 16:
        raise keras_tuner.errors.FailedTrialError("too large")
    return head(units * factor)

def gives_none(hp):
    units, factor = hp.Choice("units", [4, 8]), hp.Choice("factor", [1, 2])
    return None if units * factor == 16 else head(units * factor)

def wrong_for_one(hp):
    if hp.Choice("units", [4, 8]) == 4:
        return plain(hp)
    model = keras.Sequential([keras.Input((7,)), layers.Dense(3)])
    model.compile(loss="sparse_categorical_crossentropy")
    return model

def half(hp):
    if hp.Choice("units", [4, 8]) == 8:
        raise ValueError("odd")
    return head(4)

def fatal(hp):
    hp.Choice("units", [4, 8])
    raise keras_tuner.errors.FatalError("no licence")

def narrow(hp):
    model = keras.Sequential([layers.Dense(hp.Choice("units", [4, 8]))])
    model.compile(loss="sparse_categorical_crossentropy")
    return model

class Foreign(layers.Layer):
    def call(self, x):
        return x * 2

def foreign(hp):
    model = keras.Sequential([Foreign(), layers.Dense(3, activation=swish_like), layers.Dense(hp.Choice("n", [3]))])
    model.compile(loss="sparse_categorical_crossentropy")
    return model

def foreign_for_one(hp):
    plain, units = hp.Choice("plain", [True, False]), hp.Choice("units", [4, 8])
    model = keras.Sequential([layers.Dense(units), layers.Dense(3, activation=None if plain else swish_like)])
    model.compile(loss=losses.SparseCategoricalCrossentropy(from_logits=True))
    return model

class Untraceable(Own):
    def call(self, x):
        return super().call(np.asarray(x))

def untraceable_for_one(hp):
    model = (Own if hp.Choice("plain", [True, False]) else Untraceable)(hp.Choice("units", [4, 8]))
    model.compile(loss=losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    return model

def swish_like(x):
    return x * keras.ops.sigmoid(x)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the module kinds, which imports parts from the same folder; both unloaded afterwards."""
    (tmp_path / "kinds.py").write_text(KINDS)
    (tmp_path / "parts.py").write_text('ACTIVATION = "relu"\nFACTOR = 2\n')
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "__init__.py").write_text("")
    (tmp_path / "late" / "shapes.py").write_text("from . import sizes\nUNITS = sizes.SMALL\n")
    (tmp_path / "late" / "sizes.py").write_text("SMALL = 4\n")
    yield tmp_path
    forget(tmp_path)


def forget(folder: Path) -> None:
    for name in ("kinds", "parts", "late", "late.shapes", "late.sizes"):
        sys.modules.pop(name, None)
    sys.path.remove(str(folder)) if str(folder) in sys.path else None


GOOD = [
    "plain",
    "no_input",
    "subclassed",
    "in_list",
    "in_dict",
    "renamed",
    "own_loss",
    "gathers",
    "one_hot",
    "sigmoids",
    "Head",
    "instance",
]


@pytest.mark.parametrize("name", GOOD)
def test_every_form_is_trained(folder: Path, searched: Run, name: str) -> None:
    trials = study_of(searched, folder, f"kinds:{name}", trials=1)
    (trial,) = trials
    assert trial.state.name == "COMPLETE", trial.user_attrs
    curves = np.genfromtxt(searched.workdir / "trials/0/curves.csv", delimiter=",", names=True)
    assert np.isfinite(np.atleast_1d(curves["accuracy"])).all()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "kinds:raises failed with units=8, factor=2: FailedTrialError: too large"),
        (
            "gives_none",
            "kinds:gives_none must return a compiled keras.Model, but returned NoneType with units=8, factor=2",
        ),
        (
            "wrong_for_one",
            "the model of kinds:wrong_for_one with {'units': 8} does not accept the cached features, (6,)",
        ),
        ("foreign_for_one", "could not be promoted: it has parts that are not Keras's own (swish_like)"),
        ("untraceable_for_one", "could not be promoted: its `call` cannot be traced ("),
    ],
)
def test_a_combination_without_a_model_fails_its_trial_alone(
    folder: Path, searched: Run, name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = study_of(searched, folder, f"kinds:{name}", trials=6)
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    assert 0 < len(failed) < 6
    assert {trial.state.name for trial in trials} == {"COMPLETE", "FAIL"}
    assert all(reason in trial.user_attrs["reason"] for trial in failed)
    assert "give no model" not in capsys.readouterr().err  # all combinations tried before the search gave models


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fatal", "kinds:fatal ends the search: no licence"),
        ("narrow", "the model of kinds:narrow with {'units': 4} outputs (4,), but there are 3 classes."),
        ("foreign", "could not be promoted: it has parts that are not Keras's own (Foreign, swish_like)"),
        ("Needing", "cannot be created without arguments (TypeError"),
    ],
)
def test_what_no_trial_could_do_is_refused_before_the_search(
    folder: Path, searched: Run, name: str, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        study_of(searched, folder, f"kinds:{name}", trials=2)
    assert message in str(caught.value)
    study = (
        optuna.load_study(study_name="tiny", storage="sqlite:///run/study.db")
        if Path("run/study.db").exists()
        else None
    )
    assert study is None or not study.trials


def test_combinations_without_a_model_are_said_before_the_search(folder: Path) -> None:
    (note,) = HypermodelSpace("kinds:half", folder).notes
    assert note.startswith(
        "1 of the 3 combinations tried give no model, e.g. kinds:half failed with units=8: ValueError: odd."
    )


def test_a_fit_of_its_own_is_said(folder: Path) -> None:
    (note,) = HypermodelSpace("kinds:Fitting", folder).notes
    assert "defines its own `fit`, which is not used" in note
    assert HypermodelSpace("kinds:Head", folder).notes == []


def test_the_whole_module_and_what_it_imports_from_beside_it_counts(folder: Path) -> None:
    first = HypermodelSpace("kinds:plain", folder).digest
    assert HypermodelSpace("kinds:plain", folder).digest == first
    digests = {first}
    edits = [
        ("kinds.py", '"adam"', '"sgd"'),
        ("parts.py", "relu", "tanh"),
        ("parts.py", "FACTOR = 2", "FACTOR = 3"),  # a constant, imported by name
        ("late/sizes.py", "4", "8"),  # imported inside a function, by a package, from the same folder
    ]
    for file, before, after in edits:
        forget(folder)
        (folder / file).write_text((folder / file).read_text().replace(before, after))
        digests.add(HypermodelSpace("kinds:plain", folder).digest)
    assert len(digests) == 1 + len(edits)


def test_values_that_are_held_are_not_drawn(folder: Path) -> None:
    space = HypermodelSpace("kinds:raises", folder, {"units": 4})
    assert [one.name for one in space.parameters()] == ["factor"]
    config = space.suggest(optuna.create_study().ask(), Views(), 1, 0)
    assert config.hypermodel is not None and config.hypermodel.values["units"] == 4
    with pytest.raises(
        UsageError, match=r"unknown hyperparameter 'unit'; it must be one of units, factor. Did you mean 'units'"
    ):
        HypermodelSpace("kinds:raises", folder, {"unit": 4})


@pytest.mark.parametrize("name", GOOD)
def test_as_a_head_it_gives_the_same_classes_and_probabilities(folder: Path, name: str) -> None:
    from scipy.special import softmax

    features = np.random.default_rng(0).normal(0, 2, (40, 6)).astype(np.float32)
    HypermodelSpace(f"kinds:{name}", folder)
    model = build_model(HypermodelChoice(function=f"kinds:{name}", values={"units": 4}), folder, (6,), 3, 1)
    given = np.asarray(model(features, training=False))
    logits = np.asarray(as_head(model, (6,), features)(features, training=False))
    probabilities = softmax(given, axis=1) if name == "subclassed" else given / given.sum(1, keepdims=True)
    assert softmax(logits, axis=1) == pytest.approx(probabilities, abs=1e-5)
    forms = {"gathers": "a column of class numbers", "one_hot": "one-hot rows", "sigmoids": "one-hot rows"}
    assert choose_label_form(model, (6,), 3) == forms.get(name, "class numbers")


def test_a_loss_that_takes_neither_kind_of_label(folder: Path) -> None:
    choice = HypermodelChoice(function="kinds:plain", values={"units": 4})
    model = build_model(choice, folder, (6,), 3, 1)

    def broken(y: object, p: object) -> object:
        raise RuntimeError("no labels please")

    model.compile("adam", broken)
    with pytest.raises(
        CombinationError, match=r"neither one-hot rows nor class numbers nor a column .*no labels please"
    ):
        choose_label_form(model, (6,), 3)
