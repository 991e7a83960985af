"""Phases: what each trains and with which rates, presets, and training from cached activations of the frozen layers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from features.augmentation.augment import Augmenter, resolve_policy
from features.building.build import build_cache
from features.cache.feature_cache import FeatureCache
from features.cache.views import Views
from features.config import FeaturesConfig
from features.dataset.index import load_index
from features.runtime.errors import UsageError
from reports.config import Run
from search.heads import HeadConfig
from search.optimizers import SGD, AdamW
from search.schedules import Plateau
from tests.train.test_finetune import HEAD, MEASURED, tune
from train.config import FinetuneConfig, PhaseConfig
from train.finetuning.activations import Activations, ActivationViews, activation_features
from train.finetuning.finetune import Data, finetune
from train.finetuning.heads import space_head
from train.finetuning.journal import Journal
from train.finetuning.model import build_network, find_cut, trainees
from train.finetuning.optimizer import build_optimizer
from train.finetuning.unfreeze import rate_factors, trained_layers, unfreeze
from train.photos import Photos, PhotoViews

PHASES = [
    {"unfreeze": "head", "epochs": 2, "learning_rate": 1e-2, "plateau": None},
    {"unfreeze": 1, "epochs": 2, "learning_rate": 1e-3, "optimizer": {"kind": "sgd"}},
    {"unfreeze": "all", "epochs": 2, "learning_rate": 1e-3, "depth_decay": 0.5, "early_stopping_epochs": 1},
]


def kernels(network: Any) -> list[Any]:
    backbone = network.get_layer("extractor").get_layer("backbone")
    return [layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)]


def test_each_phase_has_its_own_layers_rates_and_end(searched: Run, tmp_path: Path) -> None:
    network, done, history = tune(searched, tmp_path / "run", phases=PHASES)
    assert history["phase"].tolist()[:6] == [0, 1, 1, 2, 2, 3]
    assert history["learning_rate"].tolist()[1:6] == [1e-2, 1e-2, 1e-3, 1e-3, 1e-3]
    assert set(done.unfrozen) <= {
        layer.name for layer in kernels(network)
    }  # which ones: tests/train/test_best_epoch.py
    if len(history) == 6:  # the third phase stopped early
        assert history["val_accuracy"][5] <= history["val_accuracy"][:5].max()
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Phase 1 of 3: the head (0 layers of the backbone)." in log
    assert "Phase 2 of 3: the head and the last 1 convolutional layer (1 layer of the backbone)." in log
    assert "Phase 3 of 3: the head and the whole backbone (2 layers of the backbone)." in log


def test_batch_normalisation_stays_to_the_bit_through_every_phase_and_the_head_alone_moves_nothing_else(
    searched: Run, tmp_path: Path
) -> None:
    before, _, _ = tune(searched, tmp_path / "none", phases=[{"unfreeze": "head", "epochs": 1, "learning_rate": 1e-30}])
    after, _, history = tune(
        searched, tmp_path / "all", HEAD, phases=[{**PHASES[0], "epochs": 3}, {**PHASES[2], "learning_rate": 0.05}]
    )
    head_only, _, _ = tune(searched, tmp_path / "head", phases=[{**PHASES[0], "epochs": 3}])

    def weights(network: Any, kind: type) -> list[Any]:
        layers = network.get_layer("extractor").get_layer("backbone").layers
        return [np.array(weight) for layer in layers if isinstance(layer, kind) for weight in layer.weights]

    normalised = keras.layers.BatchNormalization
    assert len(weights(before, normalised)) == 4
    for one, other in zip(weights(before, normalised), weights(after, normalised), strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(weights(before, keras.layers.Conv2D), weights(head_only, keras.layers.Conv2D), strict=True):
        assert np.array_equal(one, other)
    assert (history["phase"] == 2).any()


def test_a_run_of_phases_goes_on_with_the_same_history_wherever_it_was_interrupted(
    searched: Run, tmp_path: Path
) -> None:
    import train.finetuning.finetune

    phases = [{**phase, "early_stopping_epochs": None} for phase in PHASES]
    _, _, undisturbed = tune(searched, tmp_path / "undisturbed", phases=phases)
    fit = train.finetuning.finetune._Phase._fit
    for interrupted_after in (1, 2, 3, 5):
        calls = []

        def interrupted(*arguments: Any, end: int = interrupted_after, calls: list[Any] = calls) -> Any:
            calls.append(arguments)
            if len(calls) == end + 1:
                raise KeyboardInterrupt
            return fit(*arguments)

        folder = tmp_path / str(interrupted_after)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train.finetuning.finetune._Phase, "_fit", interrupted)
            with pytest.raises(KeyboardInterrupt):
                tune(searched, folder, phases=phases)
            _, _, resumed = tune(searched, folder, phases=phases)
        assert len(calls) == 7
        pd.testing.assert_frame_equal(resumed[[*MEASURED, "phase"]], undisturbed[[*MEASURED, "phase"]], rtol=1e-5)


def test_rates_fall_with_the_depth_and_decay_follows_them(tiny_backbone: Path) -> None:
    config = FeaturesConfig(backbone=str(tiny_backbone), preprocessing="resnet_v2", image_size=(32, 32))
    moments = np.zeros(6, np.float32), np.ones(6, np.float32)
    network = build_network(config, space_head(HeadConfig(), 3, moments), "float32")
    unfreeze(network, "all")
    factors = rate_factors(network, 0.5)
    first, last = kernels(network)
    classifier = network.get_layer("head").get_layer("classifier").kernel
    assert (factors[classifier.path], factors[last.kernel.path], factors[first.kernel.path]) == (1, 0.5, 0.25)
    for optimizer, moved in ((SGD(momentum=0), 0.1), (AdamW(weight_decay=0.0), 0.1)):
        phase = PhaseConfig(optimizer=optimizer, learning_rate=0.1, plateau=None, unfreeze="all")
        weights = network.trainable_variables
        built = build_optimizer(phase, factors, 4, weights)
        before = [np.array(weight) for weight in weights]
        built.apply([keras.ops.ones(weight.shape) for weight in weights])
        for old, weight in zip(before, weights, strict=True):
            assert np.allclose(old - np.array(weight), moved * factors[weight.path], atol=1e-5)
    decaying = build_optimizer(
        PhaseConfig(optimizer=AdamW(weight_decay=0.5), learning_rate=0.1, plateau=None), factors, 4, weights
    )
    before = [np.array(weight) for weight in weights]
    decaying.apply([keras.ops.zeros(weight.shape) for weight in weights])
    for old, weight in zip(before, weights, strict=True):
        assert np.allclose(np.array(weight), old * (1 - 0.1 * factors[weight.path] * 0.5), atol=1e-6)


def test_the_seeds_recipe_by_its_name() -> None:
    one, two = FinetuneConfig(preset="seed_2021").plan
    assert (one.unfreeze, one.learning_rate, two.unfreeze, two.learning_rate) == (5, 1e-5, 5, 8e-6)
    for phase in (one, two):
        rule = phase.followed
        assert isinstance(rule, Plateau)
        assert (rule.factor, rule.patience_epochs, rule.floor, phase.optimizer.kind) == (0.5, 5, 1e-6, "adam")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "seed_2021", "epochs": 3}, "both preset and epochs are set, but preset defines the whole recipe"),
        ({"preset": "seed_2021", "phases": [{}]}, "both phases and preset are set"),
        ({"phases": [{"unfreeze": 3}], "unfreeze_conv_layers": 3}, "both phases and unfreeze_conv_layers are set"),
        ({"phases": []}, "phases"),
        ({"phases": [{"unfreeze": -1}]}, "greater than or equal to 0"),
    ],
)
def test_a_plan_that_is_said_twice_or_not_at_all_is_refused(settings: Any, message: str) -> None:
    if "unfreeze_conv_layers" in settings:
        settings = {**settings, "unfreeze_conv_layers": 7}
    with pytest.raises(ValidationError, match=message):
        FinetuneConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "phase", "key"),
    [
        ({}, 1, "learning_rate"),
        ({"schedule": {"kind": "cosine"}}, 1, "schedule.learning_rate"),
        ({"preset": "seed_2021"}, 2, "preset"),
        ({"phases": [{}, {"schedule": {"kind": "cosine"}}]}, 2, "phases.1.schedule.learning_rate"),
        ({"phases": [{}, {}]}, 1, "phases.0.learning_rate"),
    ],
)
def test_a_message_about_a_rate_names_the_key_that_sets_it(settings: Any, phase: int, key: str) -> None:
    assert FinetuneConfig(**settings).rate_key(phase) == f"train.finetune.{key}"


def test_an_unknown_layer_is_refused_with_the_nearest(tiny_backbone: Path) -> None:
    config = FeaturesConfig(backbone=str(tiny_backbone), preprocessing="resnet_v2", image_size=(32, 32))
    moments = np.zeros(6, np.float32), np.ones(6, np.float32)
    network = build_network(config, space_head(HeadConfig(), 3, moments), "float32")
    name = kernels(network)[-1].name
    assert unfreeze(network, name) == [name]
    with pytest.raises(UsageError, match=rf"no layer '{name}x'\. Did you mean .*{name}"):
        unfreeze(network, name + "x")


@pytest.fixture
def residual(tmp_path: Path) -> Path:
    """A backbone of two residual blocks, with dropout before and within the last."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(6, 3, strides=4, padding="same", name="stem")(inputs)
    x = keras.layers.Dropout(0.5, name="drop")(x)
    for block in ("one", "two"):
        y = keras.layers.Conv2D(6, 3, padding="same", name=f"{block}_a")(keras.layers.ReLU(name=f"{block}_relu")(x))
        y = keras.layers.BatchNormalization(name=f"{block}_bn")(y)
        y = keras.layers.Conv2D(6, 1, name=f"{block}_b")(y)
        x = keras.layers.Add(name=f"{block}_out")([x, y])
    keras.Model(inputs, x).save(tmp_path / "residual.keras")
    return tmp_path / "residual.keras"


@pytest.mark.parametrize(
    ("what", "cut"),
    [(1, "one_out"), (2, "one_out"), (3, "drop"), ("two_b", "one_out"), ("one_relu", "drop"), ("all", None)],
)
def test_the_cut_is_behind_the_last_layer_that_no_path_leads_past(residual: Path, what: Any, cut: str | None) -> None:
    backbone = keras.saving.load_model(residual)
    assert find_cut(backbone, trained_layers(backbone, [what])) == cut


@pytest.mark.parametrize(
    ("compute", "draw", "pooling"),
    [
        ("float32", "rotation", "avg"),
        ("float32", "per_image", "avg"),
        ("float32", "rotation", "avg+covariance:4"),
        ("bfloat16", "rotation", "avg"),
        ("bfloat16", "per_image", "avg"),
    ],
)
def test_training_from_cached_activations_is_training_through_the_whole_network_on_the_same_views(
    searched: Run, residual: Path, tmp_path: Path, compute: str, draw: Any, pooling: str
) -> None:
    changes = {"backbone": str(residual), "compute": compute, "dtype": "float32", "pooling": pooling}
    features = searched.features.model_copy(update=changes)
    run = searched.model_copy(update={"features": features})
    phases = [
        {"unfreeze": "head", "epochs": 1, "learning_rate": 1e-2},
        {"unfreeze": 2, "epochs": 3, "learning_rate": 1e-2},
    ]
    config = FinetuneConfig(phases=phases, batch_size=4, activation_copies=2)
    projections = FeatureCache.open(Path(build_cache(run)["cache"])).projections
    cached = activation_features(run.features, config.plan, 2)
    assert (cached.cut, cached.pooling, cached.copies) == ("one_out", "none", 2)
    cache = FeatureCache.open(Path(build_cache(run.model_copy(update={"features": cached}))["cache"]))
    views = Views(copies=2, clean_share=0.25, draw=draw)
    photos = {split: Photos(run, load_index(run), split) for split in ("train", "val")}
    augment = Augmenter(resolve_policy(run.features.augmentation))
    through = PhotoViews(photos["train"], augment, config.seed, views=views, cache_seed=run.features.seed)
    histories = []
    for name, data in (
        ("whole", Data(through, photos["val"])),
        ("suffix", Data(ActivationViews(cache, views, config.seed), Activations(cache, "val"), are_activations=True)),
    ):
        (tmp_path / name).mkdir()
        policy: Any = "mixed_bfloat16" if compute == "bfloat16" else "float32"
        size = 6 if pooling == "avg" else 6 + 4 * 5 // 2
        moments = np.zeros(size, np.float32), np.ones(size, np.float32)
        network = build_network(run.features, space_head(HEAD, 3, moments), policy, projections)
        random = np.random.default_rng(0)
        for weight in network.get_layer("head").trainable_variables:
            weight.assign(random.normal(0, 0.3, weight.shape).astype(np.float32))
        finetune(
            network,
            run.features,
            space_head(HEAD, 3, moments),
            config,
            data,
            tmp_path / name,
            "same",
            Journal(tmp_path / name),
        )
        histories.append(pd.read_csv(tmp_path / name / "history.csv"))
    whole, suffix = histories
    tolerance = 1e-4 if compute == "float32" else 2e-2
    pd.testing.assert_frame_equal(suffix[["loss", "val_loss"]], whole[["loss", "val_loss"]], rtol=tolerance)
    assert whole["loss"][1:].nunique() == 4


def test_where_everything_is_trained_there_is_nothing_to_compute_once(searched: Run, residual: Path) -> None:
    features = searched.features.model_copy(update={"backbone": str(residual)})
    with pytest.raises(UsageError, match=r"activation_copies: the phases train the backbone from its first layer on"):
        activation_features(features, [PhaseConfig(unfreeze="all")], 2)
    alone = activation_features(features, [PhaseConfig(unfreeze="head")], 2)
    assert (alone.cut, alone.pooling, alone.copies) == (features.cut, features.pooling, 2)
    with pytest.raises(
        UsageError, match=r"activation_copies: received 3, .* the search's own cache, which has 2 copies"
    ):
        activation_features(features, [PhaseConfig(unfreeze="head")], 3)


def test_the_trained_models_share_their_weights_with_the_network(searched: Run, residual: Path) -> None:
    features = searched.features.model_copy(update={"backbone": str(residual)})
    moments = np.zeros(6, np.float32), np.ones(6, np.float32)
    network = build_network(features, space_head(HEAD, 3, moments), "float32")
    unfreeze(network, 2)
    models = trainees(network, features, {"two_a", "two_b"})
    paths = {weight.path for weight in network.trainable_variables}
    for model in (models.on_photos, models.on_activations):
        assert {weight.path for weight in model.trainable_variables} == paths
    photos = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    assert np.allclose(models.on_photos(photos), network(photos), atol=1e-5)


DEVICES = """
import sys
from pathlib import Path
import yaml
from reports.config import Run
from tests.train.test_finetune import HEAD, tune
from train.finetuning.devices import use_devices
run = Run.model_validate(yaml.safe_load(Path("headhunt.yaml").read_text()))
print(use_devices(4))
tune(run, Path(sys.argv[1]), HEAD.model_copy(update={"dropout": 0.0}), epochs=2)
"""


def test_two_devices_train_as_one_does(searched: Run, tmp_path: Path) -> None:
    histories = []
    for devices in (1, 2):
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        root = str(Path(__file__).parents[2])
        environment = {
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": flags,
            "PYTHONPATH": root,
        }
        command = [sys.executable, "-P", "-c", DEVICES, str(tmp_path / str(devices))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(devices)
        histories.append(pd.read_csv(tmp_path / str(devices) / "history.csv"))
    pd.testing.assert_frame_equal(histories[1][["loss", "val_loss"]], histories[0][["loss", "val_loss"]], rtol=1e-3)


PROMOTION = """
from pathlib import Path
import yaml
import features.runtime.workers.executors
from reports.config import Run
from train.promotion.promote import promote
features.runtime.workers.executors.check_gpus = lambda wanted: None  # two devices of the CPU stand for GPUs
raw = yaml.safe_load(Path("headhunt.yaml").read_text())
raw["train"]["workers"] = {"executor": "local", "gpus": 2}
run = Run.model_validate(raw)
(found,) = promote(run)
print(found.backend, found.devices, found.parity.images, found.epochs)
"""


@pytest.mark.slow
def test_a_whole_promotion_on_two_devices(searched: Run) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-c", PROMOTION]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["jax", "2", "5", "3"]
