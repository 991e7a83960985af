"""The `train` section: what it rejects before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from features.run_file import validate
from features.runtime.errors import UsageError
from search.schedules import Constant, OneCycle, Plateau, ScheduleConfig, WarmupCosine
from train.config import FinetuneConfig, TrainRun


def load(**finetune: Any) -> FinetuneConfig:
    raw = {"dataset": {"kind": "toy_cars"}, "train": {"finetune": finetune}}
    return validate(TrainRun, raw, "headhunt.yaml").train.finetune


def test_what_the_seed_did_is_the_default() -> None:
    tuning = load()
    assert (tuning.unfreeze_conv_layers, tuning.epochs, tuning.batch_size, tuning.learning_rate) == (5, 50, 32, 1e-5)
    assert tuning.plateau is not None
    assert (tuning.plateau.factor, tuning.plateau.patience_epochs, tuning.plateau.floor) == (0.5, 5, 1e-6)


def test_a_schedule_of_the_search_and_a_list_of_layers_are_taken() -> None:
    tuning = load(
        schedule={"kind": "warmup_cosine", "learning_rate": 1e-4},
        augmentation=[{"layer": "RandomFlip", "mode": "horizontal"}, {"layer": "RandomRotation", "factor": 0.05}],
    )
    assert tuning.schedule == WarmupCosine(learning_rate=1e-4)
    assert load(**tuning.model_dump(mode="json")) == tuning


@pytest.mark.parametrize(
    ("finetune", "followed"),
    [
        ({}, Plateau(learning_rate=1e-5)),
        ({"learning_rate": 2e-5, "plateau": {"factor": 0.1}}, Plateau(learning_rate=2e-5, factor=0.1)),
        ({"learning_rate": 2e-5, "plateau": None}, Constant(learning_rate=2e-5)),
        ({"schedule": {"kind": "one_cycle", "warmup_epochs": 1}}, OneCycle(warmup_epochs=1)),
        ({"schedule": {"kind": "plateau", "learning_rate": 1e-4}}, Plateau(learning_rate=1e-4)),
    ],
)
def test_the_schedule_that_a_run_follows(finetune: dict[str, Any], followed: ScheduleConfig) -> None:
    assert load(**finetune).followed == followed


@pytest.mark.parametrize(
    ("finetune", "message"),
    [
        (
            {"augmentation": "flip_rotat"},
            r"train.finetune.augmentation: received 'flip_rotat'; allowed: none, mild, flip",
        ),
        ({"augmentation": [{"layer": "RandomHue"}]}, r"train.finetune.augmentation.0: RandomHue requires factor"),
        (
            {"augmentation": {"policy": "mild", "clean_share": 0.1}},
            r"train.finetune.augmentation.clean_share: unknown key. Allowed: policy, name, layers, clean_probability",
        ),
        (
            {"augmentation": [{"layer": "CenterCrop", "height": 100, "width": 90}]},
            r"train.finetune.augmentation: these layers output photos of 100×90, but features.image_size is 224×224",
        ),
        ({"epoch": 3}, r"train.finetune.epoch: unknown key. Did you mean 'epochs'\?"),
        ({"learning_rate": 0}, r"train.finetune.learning_rate: received 0; input should be greater than 0"),
        ({"plateau": {"kind": "plateau"}}, r"train.finetune.plateau.kind: unknown key"),
        (
            {"schedule": {"kind": "one_cycle", "rise_share": 1}},
            r"train.finetune.schedule.rise_share: received 1; input should be less than 1",
        ),
        ({"schedule": {"kind": "cosin"}}, r"train.finetune.schedule.kind: received 'cosin'; allowed: 'constant'"),
        ({"plateau": {"factor": 2}}, r"train.finetune.plateau.factor: received 2; input should be less than 1"),
    ],
)
def test_wrong_values_are_refused_with_their_key(finetune: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(**finetune)


def test_options_change_the_workers_of_promotions_and_nothing_else(searched: TrainRun) -> None:
    """From the section if set, else like those of features, one at a time."""
    assert searched.with_workers(None, None) is searched
    assert searched.features.workers.executor == "local"
    changed = searched.with_workers(2, None)
    assert (changed.promotion_workers.count, changed.promotion_workers.executor) == (2, "local")
    again = changed.with_workers(None, "ray")
    assert (again.promotion_workers.count, again.promotion_workers.executor) == (2, "ray")
    plain = {"train": searched.train}
    assert again.model_copy(update=plain) == searched
