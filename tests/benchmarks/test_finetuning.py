"""Fine-tuning five convolutional layers of ResNet101V2: an epoch through the whole network and from cached activations, and
whether the photos come as fast as the network takes them."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.augmentation.augment import Augmenter, resolve_policy
from features.building.build import build_cache
from features.cache.feature_cache import FeatureCache
from features.cache.views import Views
from features.config import FeaturesRun
from features.dataset.index import load_index
from features.dataset.prepare import prepare
from search.heads import HeadConfig
from train.config import FinetuneConfig
from train.finetuning.activations import Activations, ActivationViews, activation_features
from train.finetuning.batches import training_epoch
from train.finetuning.finetune import Data, finetune
from train.finetuning.heads import space_head
from train.finetuning.journal import Journal
from train.finetuning.model import Policy, build_network
from train.photos import Photos, PhotoViews

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

EPOCHS = int(os.environ.get("HEADHUNT_BENCH_REPEATS", "3"))

HEAD = HeadConfig(units=(256,), dropout=0.3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FeaturesRun:
    """320 drawn cars of 224 px, all of ResNet101V2 with random weights."""
    folder = tmp_path_factory.mktemp("finetuning")
    dataset = {"kind": "toy_cars", "classes": 8, "per_class": 40, "image_size": 224}
    features = {
        "backbone": "resnet101v2",
        "weights": "random",
        "image_size": 224,
        "copies": 0,
        "workers": {"executor": "local"},
    }
    made = FeaturesRun.model_validate({"workdir": folder / "run", "dataset": dataset, "features": features})
    prepare(made)
    return made


MOMENTS = np.zeros(2048, np.float32), np.ones(2048, np.float32)


def built(run: FeaturesRun) -> Any:
    policy: Policy = "mixed_bfloat16"
    return build_network(run.features, space_head(HEAD, 8, MOMENTS), policy)


def test_an_epoch_from_cached_activations_against_one_through_the_network(run: FeaturesRun, tmp_path: Path) -> None:
    """The same views and weights; medians over epochs that alternate."""
    config = FinetuneConfig(unfreeze_conv_layers=5, epochs=1, learning_rate=1e-4, plateau=None, activation_copies=2)
    cached = activation_features(run.features, config.plan, 2)
    started = time.monotonic()
    cache = FeatureCache.open(Path(build_cache(run.model_copy(update={"features": cached}))["cache"]))
    building = time.monotonic() - started
    views = Views(copies=2, draw="per_image")
    photos = {split: Photos(run, load_index(run), split) for split in ("train", "val")}
    augment = Augmenter(resolve_policy(run.features.augmentation))
    through = PhotoViews(photos["train"], augment, config.seed, views=views, cache_seed=run.features.seed)
    networks: dict[str, Any] = {}
    sources = {
        "whole": Data(through, photos["val"]),
        "suffix": Data(ActivationViews(cache, views, config.seed), Activations(cache, "val"), are_activations=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    losses: dict[str, list[float]] = {name: [] for name in sources}
    for name in sources:
        networks[name] = built(run)
    start = networks["whole"].get_weights()
    for repeat in range(EPOCHS + 1):  # the first compiles
        for name, data in sources.items():
            folder = tmp_path / f"{name}-{repeat}"
            folder.mkdir()
            networks[name].set_weights(start)
            finetune(
                networks[name],
                run.features,
                space_head(HEAD, 8, MOMENTS),
                config,
                data,
                folder,
                "same",
                Journal(folder),
            )
            history = np.genfromtxt(folder / "history.csv", delimiter=",", names=True)
            if repeat:
                seconds[name].append(float(history["seconds"][1]))
                losses[name].append(float(history["loss"][1]))
    whole, suffix = (statistics.median(seconds[name]) for name in ("whole", "suffix"))
    kib = np.prod(cache.feature_shape) * 2 / 1024
    print(
        f"\n5 unfrozen convolutional layers of ResNet101V2, {len(photos['train'])} photos of 224 px, batch 32, bfloat16, medians "
        f"of {EPOCHS}: an epoch with its validation takes {whole:.2f} s through the network, {suffix:.2f} s from activations "
        f"cut at {cached.cut} ({kib:.0f} KiB a view): {whole / suffix:.1f} times as fast. Building it for 2 copies took "
        f"{building:.0f} s. Training losses of the epoch: {losses['whole'][0]:.5f} and {losses['suffix'][0]:.5f}"
    )


def test_the_photos_come_faster_than_the_network_takes_them(run: FeaturesRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding, resizing and augmenting alone, photos in memory or in their files; and the share of an epoch spent waiting."""
    import train.photos

    augment = Augmenter(resolve_policy(run.features.augmentation))
    for kept in ("memory", "files"):
        if kept == "files":
            monkeypatch.setattr(train.photos, "MEMORY_BYTES", 0)
        source = PhotoViews(Photos(run, load_index(run), "train"), augment, 0)
        rates = []
        for epoch in range(EPOCHS + 1):
            started = time.monotonic()
            with training_epoch(source, epoch, 32, 8, 0) as batches:
                for number in range(len(batches)):
                    batches[number]
            if epoch:
                rates.append(32 * len(batches) / (time.monotonic() - started))
        network = built(run)
        network.trainable = False
        with training_epoch(source, 9, 32, 8, 0) as batches:
            waited, whole = _waiting(network, batches)
        print(
            f"\nphotos from {kept}: {statistics.median(rates):.0f} views/s alone (medians of {EPOCHS}); beside a ResNet101V2 "
            f"that only predicts, {waited / whole:.1%} of {whole:.1f} s was spent waiting for them"
        )


def _waiting(network: Any, batches: Any) -> tuple[float, float]:
    """Seconds of waiting for batches, and in all, while the network predicts them."""
    batches[0], network.predict_on_batch(batches[0][0])
    waited, started = 0.0, time.monotonic()
    for number in range(1, len(batches)):
        before = time.monotonic()
        photos, _ = batches[number]
        waited += time.monotonic() - before
        network.predict_on_batch(photos)
    return waited, time.monotonic() - started
