"""One promotion on a worker, from the trial's weights to the evaluated model: parity check, fine-tuning, evaluation."""

from __future__ import annotations

import math
import time
import traceback
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from features.audit.moments import feature_moments
from features.augmentation.augment import Augmenter, resolve_policy
from features.backbones.table import compute_dtype
from features.cache.feature_cache import FeatureCache
from features.cache.views import Views
from features.config import Augmentation
from features.dataset.index import DatasetIndex
from features.runtime.atomic import atomic_path, make_folder, remove_leftovers
from features.runtime.errors import CacheError, HeadhuntError
from features.runtime.log import counted
from search.leaderboard import Leader
from search.records import load_weights
from train.config import TrainRun
from train.evaluate import Probabilities, SplitMetrics, class_table, measure, predict, prediction_table, softmax
from train.finetuning.activations import Activations, ActivationViews
from train.finetuning.devices import use_devices
from train.finetuning.finetune import Data, finetune
from train.finetuning.heads import trial_head
from train.finetuning.journal import Journal
from train.finetuning.model import Policy, build_network, deployable, features_of
from train.ledger import record_test_evaluation
from train.photos import Photos, PhotoViews
from train.promotion.artifact import MODEL, Parity, Promotion, ledger_names, write_promotion
from train.promotion.predictions import PREDICTIONS

PARITY_IMAGES = 64

HEAD_BATCH = 4096
"""Number of cached features in a head's batch."""

TOLERANCE = {"float16": 5e-3, "float32": 1e-3}
"""Largest allowed difference in probability between the network and its head on cached features, by the cache's dtype: a float16
feature is off by up to 5e-4 of its value, and the head sums many of them."""


@dataclass(frozen=True)
class Task:
    """A promotion to make, with absolute paths; `made_from` is the digest of everything that its numbers depend on.

    `folder` is its output folder; `code` may contain the module of a hypermodel; `cache` is the folder of the search's features,
    `activations` that of the activations to train from, if the configuration uses them.
    """

    run: TrainRun
    leader: Leader
    folder: Path
    code: Path
    index: DatasetIndex
    cache: Path
    augmentation: Augmentation
    made_from: str
    activations: Path | None


@dataclass(frozen=True)
class PromotionOutcome:
    """The outcome of a promotion: its error, or None if it succeeded."""

    error: HeadhuntError | None = None


@dataclass(frozen=True)
class Inputs:
    """The inputs of a promotion."""

    run: TrainRun
    cache: FeatureCache
    photos: dict[str, Photos]
    parts: str | None


def promote_trial(task: Task) -> PromotionOutcome:
    """Makes a promotion, or resumes an interrupted one after its last epoch; metrics.json is written last."""
    journal = Journal(make_folder(task.folder))
    remove_leftovers(task.folder)
    try:
        _promote(task, journal)
    except (CancelledError, CacheError):  # a damaged cache affects all promotions, not just this one
        raise
    except HeadhuntError as error:  # other promotions continue
        return PromotionOutcome(error)
    except Exception as error:
        fault = task.folder / "fault.txt"
        with suppress(OSError):
            fault.write_text(traceback.format_exc(), encoding="utf-8")
        named = f"the promotion of trial {task.leader.number} failed: {type(error).__name__}: {error}"
        return PromotionOutcome(HeadhuntError(f"{named}. The traceback is in {fault}; finished work is kept."))
    finally:
        journal.close()
    return PromotionOutcome()


def _promote(task: Task, journal: Journal) -> None:
    started = time.monotonic()
    run, leader, folder = task.run, task.leader, task.folder
    tuning = run.train.finetune
    devices = use_devices(tuning.batch_size, math.ceil(run.promotion_workers.gpus) or None)
    splits = run.evaluated_splits
    cache = FeatureCache.open(task.cache)
    photos = {split: Photos(run, task.index, split) for split in splits}
    parts, projections = leader.config.features.parts, cache.projections
    moments = feature_moments(cache.arrays("train", parts=parts)[0], cache.part_widths(parts))
    inputs, features = Inputs(run, cache, photos, parts), features_of(run.features, leader.config)
    policy: Policy = "mixed_bfloat16" if compute_dtype(run.features) == "bfloat16" else "float32"
    sample = cache.arrays("train", parts=parts)[0][:PARITY_IMAGES].astype(np.float32)
    weights = load_weights(run.workdir, leader.number)
    head = trial_head(leader.config, task.code, sample, len(cache.class_names), moments, weights)
    network, alone = build_network(features, head, policy, projections), head.build(cache.shape_of(parts))
    accuracy, parity = _check_head(inputs, leader, network, alone)
    plan = "; then ".join(f"{phase.title}, {counted(phase.epochs, 'epoch')}" for phase in tuning.plan)
    journal.log(
        f"frozen validation accuracy {accuracy:.4f}; network and head agree on {parity.images} cached photos within "
        f"{parity.max_abs_difference:.1e}. Fine-tuning{f' on {devices} devices' if devices > 1 else ''}: {plan}."
    )
    data, objective = _data(task, inputs), run.search.objective
    done = finetune(network, features, head, tuning, data, folder, task.made_from, journal, objective)
    shipped = deployable(network, features, head, projections)
    with atomic_path(folder / MODEL) as temporary:
        shipped.save(temporary)
    if "test" in splits:  # All choices are made: the test photos are used from here on only.
        for name in ledger_names(folder):
            record_test_evaluation(run.workdir, "train promote", name, len(cache.labels("test")))
    frozen = {split: measure(_head_probabilities(alone, inputs, split), cache.labels(split)) for split in splits}
    tuned = _evaluate(inputs, shipped, folder)
    promotion = Promotion(
        folder=folder,
        trial=leader.number,
        frozen=SplitMetrics(**frozen),
        tuned=tuned,
        parity=parity,
        unfrozen=done.unfrozen,
        finetune=tuning,
        backend=run.backend,
        devices=devices,
        epochs=done.epochs,
        best_epoch=done.best_epoch,
        seconds=round(time.monotonic() - started + done.earlier_seconds, 1),
        versions={name: metadata.version(name) for name in ("headhunt", "keras", "tensorflow")},
        made_from=task.made_from,
    )
    write_promotion(promotion)


def _data(task: Task, inputs: Inputs) -> Data:
    """The network's training and validation data."""
    tuning, own = task.run.train.finetune, task.leader.config.views
    clean_share = own.clean_share if tuning.clean_share is None else tuning.clean_share
    if task.activations is None:
        augment = Augmenter(resolve_policy(task.augmentation, "train.finetune.augmentation"))
        return Data(PhotoViews(inputs.photos["train"], augment, tuning.seed, clean_share), inputs.photos["val"])
    cache = FeatureCache.open(task.activations)
    if cache.images("train").tolist() != inputs.photos["train"].rows:
        raise HeadhuntError(
            f"the activations in {task.activations} belong to other photos. Delete that folder, then rerun the same command."
        )
    views = Views(copies=tuning.activation_copies, clean_share=clean_share, draw=own.draw)
    # If only the head is trained, these are the search's own features, of which the head may see only some parts.
    parts = inputs.parts if cache.parts else None
    return Data(
        ActivationViews(cache, views, tuning.seed, parts), Activations(cache, "val", parts), are_activations=True
    )


def _head_probabilities(head: Any, inputs: Inputs, split: str) -> Probabilities:
    """The head's probabilities on the clean cached features of a split: (n, classes) float32."""
    features, _ = inputs.cache.arrays(split, parts=inputs.parts)
    chunks = range(0, len(features), HEAD_BATCH)
    logits = [np.asarray(head(features[n : n + HEAD_BATCH].astype(np.float32), training=False)) for n in chunks]
    return softmax(np.concatenate(logits))


def _check_head(inputs: Inputs, leader: Leader, network: Any, head: Any) -> tuple[float, Parity]:
    """The head's accuracy on the validation photos' cached features, and its parity with the network on photos.

    Raises HeadhuntError if they differ by more than TOLERANCE."""
    run, cache = inputs.run, inputs.cache
    val = inputs.photos["val"]
    positions = np.unique(np.linspace(0, len(val) - 1, min(PARITY_IMAGES, len(val))).astype(np.int64))
    if cache.images("val").tolist() != val.rows:
        raise HeadhuntError("the cache's validation photos do not match the index. Run `headhunt features verify`.")
    probabilities = _head_probabilities(head, inputs, "val")
    outputs = softmax(predict(network, val, run.train.finetune.batch_size, positions))
    difference = float(np.abs(outputs - probabilities[positions]).max())
    tolerance = TOLERANCE[run.features.dtype]
    if not difference <= tolerance:
        raise HeadhuntError(
            f"the network of trial {leader.number} does not match its head on the cached features: probabilities differ by up to "
            f"{difference:.2e}, but at most {tolerance:g} is allowed ({len(positions)} clean validation photos). The cache may "
            "come from other versions or another device: run `headhunt features verify`, or rebuild the cache here."
        )
    accuracy = measure(probabilities, val.labels).accuracy
    return accuracy, Parity(images=len(positions), max_abs_difference=difference, tolerance=tolerance)


def _evaluate(inputs: Inputs, shipped: Any, folder: Path) -> SplitMetrics:
    """The exported model's metrics on clean photos; also writes the tables of predictions and classes."""
    predicted = [
        (photos, predict(shipped, photos, inputs.run.train.finetune.batch_size)) for photos in inputs.photos.values()
    ]
    tables = {
        PREDICTIONS: prediction_table(predicted[1:], inputs.cache.class_names),  # without the training photos
        "per_class.csv": class_table(predicted, inputs.cache.class_names),
    }
    for name, table in tables.items():
        with atomic_path(folder / name) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n", float_format="%.8g")
    return SplitMetrics(**{photos.split: measure(found, photos.labels) for photos, found in predicted})
