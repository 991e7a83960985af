"""A hypermodel's trial through all stages: promoted, fine-tuned, exported, reported, and rerun from its export."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.dataset.index import load_index
from features.run_file import load
from reports.build import build
from reports.config import Run
from search.leaderboard import leaders
from search.retrain import trial_weights
from tests.search.hypermodel_folder import study_of
from train.exports.export import export
from train.exports.runtimes import load_model
from train.photos import Photos
from train.promotion.promote import promote

MODELS = """
import keras
from keras import layers

class Head(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.hidden, self.norm = layers.Dense(units, "relu", kernel_regularizer="l2"), layers.BatchNormalization()
        self.drop, self.last = layers.Dropout(0.2), layers.Dense(3)

    def call(self, x):
        return self.last(self.drop(self.norm(self.hidden(x))))

def subclassed(hp):
    model = Head(hp.Choice("units", [4, 8]))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model

def softmax(hp):
    model = keras.Sequential([layers.Dense(hp.Choice("units", [4, 8]), "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(1e-2), lambda y, p: keras.losses.categorical_crossentropy(y, p))
    return model
"""


@pytest.mark.parametrize("name", ["subclassed", "softmax"])
def test_a_hypermodels_trial_is_promoted_exported_reported_and_run_again(
    searched: Run, tmp_path: Path, name: str
) -> None:
    (tmp_path / "heads.py").write_text(MODELS)
    sys.modules.pop("heads", None)
    study_of(searched, tmp_path, f"heads:{name}", trials=2)
    raw = searched.model_dump(mode="json")
    raw["search"] = {key: value for key, value in raw["search"].items() if key not in ("space", "hypermodel_values")}
    run = Run.model_validate({**raw, "search": {**raw["search"], "hypermodel": f"heads:{name}"}})
    best = leaders(run)[0]
    (promotion,) = promote(run)
    assert promotion.trial == best.number
    assert promotion.frozen.val.accuracy == pytest.approx(best.value, abs=1e-6)
    assert pd.read_csv(promotion.folder / "history.csv")["epoch"].tolist() == [0, 1, 2, 3]
    exported = export(run, None, ["keras", "onnx", "config"])
    assert max(exported.formats[each].max_abs_difference for each in ("keras", "onnx")) < 1e-4
    photos = Photos(run, load_index(run), "test").inputs([0, 1, 2])
    table = pd.read_csv(promotion.folder / "predictions.csv").query("split == 'test'")
    folder = Path(exported.folder)
    named = load_model(folder / "model.onnx", "onnx").run(photos).argmax(1)
    assert named.tolist() == table["predicted_1"].tolist()[:3]
    assert (
        f"- head: the model of `heads:{name}` with units {best.params['units']}"
        in (folder / "model_card.md").read_text()
    )
    report = build(run)
    assert "promotions" in report["sections"]
    assert f"heads:{name}" in Path(report["report"]).read_text()
    again = load(Run, folder / "headhunt.yaml").search
    assert (again.hypermodel, again.hypermodel_values) == (f"heads:{name}", best.params)
    kept = run.workdir / "trials" / str(best.number) / "weights.npz"
    before = dict(np.load(kept))
    kept.unlink()
    after = trial_weights(run, best)
    assert all(np.allclose(after[key], before[key]) for key in before)
    sys.modules.pop("heads", None)
