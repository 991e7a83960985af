"""Fine-tuning alone: schedules, plateau, early stopping, and interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from features.augmentation.augment import POLICIES, Augmenter
from features.dataset.index import load_index
from reports.config import Run
from search.heads import HeadConfig
from search.metric import Metric
from search.schedules import CosineRestarts, PlateauRule
from tests.forks import run_python
from train.config import FinetuneConfig
from train.finetuning.finetune import Data, Finetuned, finetune
from train.finetuning.heads import space_head
from train.finetuning.journal import Journal
from train.finetuning.model import build_network
from train.photos import Photos, PhotoViews

HEAD = HeadConfig(units=(8,), dropout=0.3, l2=1e-3, label_smoothing=0.1)
MEASURED = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_top5_accuracy", "learning_rate"]


def tune(
    run: Run, folder: Path, head: HeadConfig = HEAD, objective: Metric = "val_accuracy", **settings: Any
) -> tuple[Any, Finetuned, pd.DataFrame]:
    """Fine-tunes a network that always starts from the same weights; returns it, the result and the history."""
    folder.mkdir(exist_ok=True)
    keras.utils.set_random_seed(3)
    channels = 6
    moments = (np.zeros(channels, np.float32), np.ones(channels, np.float32))
    network = build_network(run.features, space_head(head, 3, moments), "float32")
    random = np.random.default_rng(0)
    for weight in network.get_layer("head").trainable_variables:
        weight.assign(random.normal(0, 0.3, weight.shape).astype(np.float32))
    index = load_index(run)
    given = settings if "phases" in settings else {"learning_rate": 1e-3, "unfreeze_conv_layers": 1, **settings}
    config = FinetuneConfig(**{"batch_size": 4, **given})
    train, val = Photos(run, index, "train"), Photos(run, index, "val")
    data = Data(PhotoViews(train, Augmenter(POLICIES["flip_rotate_zoom"]), config.seed, 0.25), val)
    built = space_head(head, 3, moments)
    done = finetune(network, run.features, built, config, data, folder, "same", Journal(folder), objective)
    return network, done, pd.read_csv(folder / "history.csv")


def test_it_goes_on_with_the_same_history_where_the_backbone_draws_dropout_too(searched: Run, tmp_path: Path) -> None:
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(6, 3, strides=4, padding="same")(inputs)
    x = keras.layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(x)  # EfficientNet's way of dropping whole blocks
    file = tmp_path / "dropping.keras"
    keras.Model(inputs, keras.layers.Conv2D(6, 1)(x)).save(file)
    features = searched.features.model_copy(update={"backbone": str(file)})
    run = searched.model_copy(update={"features": features})
    _, _, undisturbed = tune(run, tmp_path / "undisturbed", epochs=3)
    _, first, _ = tune(run, tmp_path / "interrupted", epochs=1)
    _, second, resumed = tune(run, tmp_path / "interrupted", epochs=3)
    assert (first.epochs, first.earlier_seconds) == (1, 0)
    assert second.epochs == 3
    assert second.earlier_seconds == pytest.approx(resumed["seconds"][:2].sum())
    pd.testing.assert_frame_equal(resumed[MEASURED], undisturbed[MEASURED], rtol=1e-5)


def test_the_plateau_lowers_the_rate_down_to_its_floor(searched: Run, tmp_path: Path) -> None:
    plateau = PlateauRule(factor=0.5, patience_epochs=1, floor=3e-9)
    _, _, history = tune(searched, tmp_path / "run", epochs=5, learning_rate=1e-8, plateau=plateau)
    assert history["learning_rate"].tolist()[1:] == pytest.approx([1e-8, 1e-8, 5e-9, 3e-9, 3e-9])


def test_a_plateau_with_a_rise_goes_on_after_an_interruption_as_if_there_was_none(
    searched: Run, tmp_path: Path
) -> None:
    plateau = PlateauRule(factor=0.5, patience_epochs=1, floor=3e-9, rise_factor=3, rise_epochs=2)
    settings = {"learning_rate": 1e-8, "plateau": plateau}
    _, _, undisturbed = tune(searched, tmp_path / "undisturbed", epochs=7, **settings)
    assert undisturbed["learning_rate"].tolist()[1:] == [1e-8, 1e-8, 3e-8, 3e-8, 1.5e-8, 7.5e-9, 3.75e-9]
    for epochs in (2, 4, 7):
        _, _, resumed = tune(searched, tmp_path / "interrupted", epochs=epochs, **settings)
    pd.testing.assert_frame_equal(resumed[MEASURED], undisturbed[MEASURED], rtol=1e-5)


def test_plateau_as_a_schedule_is_the_plateau_of_its_own(searched: Run, tmp_path: Path) -> None:
    rule = {"factor": 0.5, "patience_epochs": 1, "floor": 3e-9}
    _, _, one = tune(searched, tmp_path / "one", epochs=3, learning_rate=1e-8, plateau=rule)
    _, _, other = tune(
        searched, tmp_path / "other", epochs=3, schedule={"kind": "plateau", "learning_rate": 1e-8, **rule}
    )
    pd.testing.assert_frame_equal(one[MEASURED], other[MEASURED])


def test_where_nothing_gets_better_it_stops_and_keeps_the_weights_it_started_with(
    searched: Run, tmp_path: Path
) -> None:
    before, _, _ = tune(searched, tmp_path / "one", epochs=1, learning_rate=1e-30)  # too small to move a weight
    after, done, history = tune(searched, tmp_path / "two", epochs=9, learning_rate=30.0, early_stopping_epochs=2)
    assert (done.best_epoch, done.epochs) == (0, 2)
    assert history["epoch"].tolist() == [0, 1, 2]
    for weight, kept in zip(before.trainable_variables, after.trainable_variables, strict=True):
        assert np.array_equal(weight, kept)


BACKEND = """
import sys
sys.path[:0] = [{folder!r}]
from pathlib import Path
import yaml
from reports.config import Run
from test_finetune import scheduled
run = Run.model_validate(yaml.safe_load(Path("headhunt.yaml").read_text()))
scheduled(run, Path(sys.argv[1]))
"""


def scheduled(run: Run, folder: Path) -> pd.DataFrame:
    """Two epochs whose rate falls from 0.02 to 0 within each; without dropout, whose masks differ between backends."""
    schedule = CosineRestarts(learning_rate=0.02, first_period_epochs=1, multiplier=1)
    _, _, history = tune(run, folder, HEAD.model_copy(update={"dropout": 0.0}), epochs=2, schedule=schedule)
    return history


def test_a_schedule_is_followed_step_by_step_on_both_backends(searched: Run, tmp_path: Path) -> None:
    here = scheduled(searched, tmp_path / "here")
    code = BACKEND.format(folder=str(Path(__file__).parent))
    done = run_python(code, str(tmp_path / "jax"))
    assert done.returncode == 0, done.stderr
    on_jax = pd.read_csv(tmp_path / "jax" / "history.csv")
    steps = len(load_index(searched).of_split("train")) // 4
    last = CosineRestarts(learning_rate=0.02, first_period_epochs=1, multiplier=1).values(steps, 1)[-1]
    assert here["learning_rate"].tolist()[1:] == pytest.approx([last, last])
    assert last < 0.5 * 0.02
    columns = ["epoch", "loss", "val_loss", "learning_rate"]
    pd.testing.assert_frame_equal(on_jax[columns], here[columns], rtol=2e-3)


def test_a_checkpoint_of_another_configuration_is_not_gone_on_with(searched: Run, tmp_path: Path) -> None:
    tune(searched, tmp_path / "run", epochs=1)
    checkpoint = tmp_path / "run" / "checkpoint.npz"
    with np.load(checkpoint, allow_pickle=False) as stored:
        arrays = dict(stored)
    facts = json.loads(str(arrays["facts"]))
    np.savez(checkpoint, **{**arrays, "facts": np.array(json.dumps({**facts, "identity": "other"}))})
    _, done, _ = tune(searched, tmp_path / "run", epochs=1)
    assert done.earlier_seconds == 0
    assert "belongs to another configuration; starting over" in (tmp_path / "run" / "log.txt").read_text()
