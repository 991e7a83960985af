"""`train promote`: take the best trials through parity check, fine-tuning and evaluation."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.atomic import atomic_path, make_folder, write_text
from features.augment import resolve_policy
from features.backbones import compute_dtype
from features.cache import FeatureCache, cache_for
from features.command import log, relative
from features.config import Augmentation
from features.dataset import SPLITS, load_index
from features.engine import start_keras
from features.errors import HeadhuntError, UsageError
from search.confirm.ranking import by_confirmation, load_confirmation
from search.heads import build_head, feature_moments, set_head_weights
from search.leaderboard import Leader, leaders
from search.retrain import trial_weights
from train.config import TrainRun
from train.evaluate import Metrics, Probabilities, class_table, measure, predict, prediction_table, softmax
from train.finetune import finetune
from train.model import Policy, build_network, deployable, set_head, unfreeze
from train.photos import Photos

PARITY_IMAGES = 64

HEAD_BATCH = 4096
"""Cached features that a head sees at a time."""

TOLERANCE = {"float16": 5e-3, "float32": 1e-3}
"""Largest difference of any probability between the network and its head on cached features, by the cache's dtype: a float16
feature is off by up to 5e-4 of its value, and the head sums many of them."""


@dataclass(frozen=True)
class Inputs:
    """What every promotion of a run shares."""

    run: TrainRun
    cache: FeatureCache
    photos: dict[str, Photos]
    moments: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def promotion_folder(run: TrainRun, number: int) -> Path:
    """`promotions/<number>`."""
    return run.workdir / "promotions" / str(number)


def promote(run: TrainRun, numbers: Sequence[int] = ()) -> dict[str, Any]:
    """Promotes the trials of these numbers, or the best `train.top`; returns the `--json` object of `train promote`.

    A finished promotion is not repeated; one that was interrupted goes on after its last epoch. Raises UsageError for a trial
    that is not there, HeadhuntError when a network does not give what its head gave on the cached features.
    """
    cache = cache_for(run)
    chosen = _choose(run, cache, numbers)
    waiting = [leader for leader in chosen if not _is_finished(run, cache, leader)]
    if waiting:
        start_keras("jax" if run.features.workers.gpus else "tensorflow")
        index = load_index(run)
        photos = {split: Photos(run, index, split) for split in SPLITS}
        inputs = Inputs(run, cache, photos, feature_moments(cache.arrays("train")[0]))
        for leader in waiting:
            _promote(inputs, leader)
    return {"promotions": [_summary(run, leader.number) for leader in chosen]}


def load_metrics(run: TrainRun, number: int) -> dict[str, Any]:
    """What a finished promotion measured (its metrics.json); UsageError when it is not finished."""
    path = promotion_folder(run, number) / "metrics.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"trial {number} has no finished promotion at {path.parent}. Run `headhunt train promote --trial {number}`."
        ) from None
    return found


def promoted(run: TrainRun) -> list[int]:
    """The trials with a finished promotion, the best validation accuracy first."""
    folders = [path.parent.name for path in (run.workdir / "promotions").glob("*/metrics.json")]
    numbers = [int(name) for name in folders if name.isdigit()]
    return sorted(numbers, key=lambda number: (-load_metrics(run, number)["tuned"]["val"]["accuracy"], number))


def _choose(run: TrainRun, cache: FeatureCache, numbers: Sequence[int]) -> list[Leader]:
    ranked = leaders(run)
    by_number = {leader.number: leader for leader in ranked}
    unknown = [number for number in numbers if number not in by_number]
    if unknown:
        shown = ", ".join(str(leader.number) for leader in ranked[:10])
        raise UsageError(
            f"trial {unknown[0]} has not run to its end in the study {run.name!r}. The best that have: {shown}."
        )
    chosen = [by_number[number] for number in dict.fromkeys(numbers)] or _winners(run, ranked)
    for leader in chosen:
        check_cache(run, leader)
        if leader.config.hypermodel is not None:
            raise UsageError(
                f"trial {leader.number} is a model of {leader.config.hypermodel.function}, and only the heads of `search.space` "
                "can be joined to the backbone. Build it from the values that `headhunt search top` shows, with the weights "
                f"in {relative(run.workdir / 'trials' / str(leader.number))}/weights.npz."
            )
    return chosen


def _winners(run: TrainRun, ranked: Sequence[Leader]) -> list[Leader]:
    """The best `train.top`: by `search confirm` where it has been run, else by the search alone."""
    confirmation = load_confirmation(run, ranked)
    if confirmation is None:
        return list(ranked[: run.train.top])
    chosen = by_confirmation(ranked, confirmation)[: run.train.top]
    seeds = len(confirmation.confirmed[0].seeds)
    shown = ", ".join(str(leader.number) for leader in chosen)
    log.print(f"Promoted by the ranking of `headhunt search confirm` (mean of {seeds} seeds): trial {shown}.")
    return chosen


def check_cache(run: TrainRun, leader: Leader) -> None:
    """Raises UsageError when a trial was trained on another cache than the configuration's, of its policy."""
    policy = leader.config.views.policy
    cache = cache_for(run, policy if policy in run.features.other_policies else None)
    if leader.cache_key != cache.key:
        raise UsageError(
            f"trial {leader.number} was trained on the cache {leader.cache_key[:16]}, but the configuration names "
            f"{cache.key[:16]}. Set the `features` and `dataset` sections back, or search anew with another `name` "
            "and `workdir`."
        )


def _identity(run: TrainRun, cache: FeatureCache, leader: Leader) -> str:
    """sha256 (hex) of everything that a promotion's numbers depend on."""
    parts = [
        cache.key,
        leader.config.model_dump_json(),
        run.train.finetune.model_dump_json(),
        _augmentation(run, leader),
    ]
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def _augmentation(run: TrainRun, leader: Leader) -> Augmentation:
    """What a fine-tuning run augments with: what its section says, or the policy whose views the trial was trained on."""
    if run.train.finetune.augmentation is not None:
        return run.train.finetune.augmentation
    policy = leader.config.views.policy
    return policy if policy in run.features.other_policies else run.features.augmentation


def _is_finished(run: TrainRun, cache: FeatureCache, leader: Leader) -> bool:
    path = promotion_folder(run, leader.number) / "metrics.json"
    finished = path.exists() and json.loads(path.read_text(encoding="utf-8"))["made_from"] == _identity(
        run, cache, leader
    )
    if finished:
        log.print(f"Trial {leader.number} is promoted already: {relative(path.parent)}")
    return finished


def _promote(inputs: Inputs, leader: Leader) -> None:
    started = time.monotonic()
    run, cache = inputs.run, inputs.cache
    tuning, classes = run.train.finetune, len(cache.class_names)
    folder = make_folder(promotion_folder(run, leader.number))
    identity = _identity(run, cache, leader)
    (folder / "metrics.json").unlink(missing_ok=True)  # of another configuration, see _is_finished
    policy: Policy = "mixed_bfloat16" if compute_dtype(run.features) == "bfloat16" else "float32"
    weights = trial_weights(run, leader)
    network = build_network(run.features, leader.config.head, classes, inputs.moments, policy)
    set_head(network, weights)
    unfrozen = unfreeze(network, tuning.unfreeze_conv_layers)
    head = build_head(leader.config.head, cache.feature_shape, classes, inputs.moments)
    set_head_weights(head, weights)
    accuracy, parity = _check_head(inputs, leader, network, head)
    log.print(
        f"Trial {leader.number}: validation accuracy {accuracy:.4f} frozen; same as its head on "
        f"{parity['images']} cached photos within {parity['max_abs_difference']:.1e}. Fine-tuning {len(unfrozen)} convolutional "
        f"layers and the head, {tuning.epochs} epochs."
    )
    clean_share = leader.config.views.clean_share if tuning.clean_share is None else tuning.clean_share
    done = finetune(
        network,
        leader.config.head,
        tuning,
        resolve_policy(_augmentation(run, leader), "train.finetune.augmentation"),
        clean_share,
        inputs.photos["train"],
        inputs.photos["val"],
        folder,
        identity,
    )
    shipped = deployable(network, run.features, leader.config.head, classes, inputs.moments)
    with atomic_path(folder / "model.keras") as temporary:
        shipped.save(temporary)
    # Every choice is made: from here on, and only from here on, the test photos are looked at.
    frozen = {split: measure(_head_probabilities(head, cache, split), cache.labels(split)) for split in SPLITS}
    tuned = _evaluate(inputs, shipped, folder)
    metrics = {
        "trial": leader.number,
        "frozen": frozen,
        "tuned": tuned,
        "parity": parity,
        "unfrozen": unfrozen,
        "finetune": tuning.model_dump(mode="json"),
        "epochs": done.epochs,
        "best_epoch": done.best_epoch,
        "seconds": round(time.monotonic() - started + done.earlier_seconds, 1),
        "versions": {name: metadata.version(name) for name in ("headhunt", "keras", "tensorflow")},
        "made_from": identity,
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")


def _head_probabilities(head: Any, cache: FeatureCache, split: str) -> Probabilities:
    """What the head gives on the clean cached features of a split: (n, classes)."""
    features, _ = cache.arrays(split)
    chunks = range(0, len(features), HEAD_BATCH)
    logits = [np.asarray(head(features[n : n + HEAD_BATCH].astype(np.float32), training=False)) for n in chunks]
    return softmax(np.concatenate(logits))


def _check_head(inputs: Inputs, leader: Leader, network: Any, head: Any) -> tuple[float, dict[str, Any]]:
    """The head's accuracy on the validation photos' cached features, and whether the network gives the same on photos."""
    run, cache = inputs.run, inputs.cache
    val = inputs.photos["val"]
    positions = np.unique(np.linspace(0, len(val) - 1, min(PARITY_IMAGES, len(val))).astype(np.int64))
    if cache.images("val").tolist() != val.rows:
        raise HeadhuntError("the cache's validation photos are not the index's. Run `headhunt features verify`.")
    probabilities = _head_probabilities(head, cache, "val")
    outputs = softmax(_predict_positions(network, val, positions, run.features.batch_size))
    difference = float(np.abs(outputs - probabilities[positions]).max())
    tolerance = TOLERANCE[run.features.dtype]
    if not difference <= tolerance:
        raise HeadhuntError(
            f"the network of trial {leader.number} does not give what its head gave on the cached features: probabilities "
            f"differ by up to {difference:.2e}, more than {tolerance:g} ({len(positions)} clean validation photos). The cache "
            "may have been made with other versions or on another device: run `headhunt features verify`, or build it anew here."
        )
    accuracy = measure(probabilities, val.labels)["accuracy"]
    return accuracy, {"images": len(positions), "max_abs_difference": difference, "tolerance": tolerance}


def _predict_positions(
    network: Any, photos: Photos, positions: npt.NDArray[np.int64], batch_size: int
) -> npt.NDArray[np.float32]:
    outputs = []
    for start in range(0, len(positions), batch_size):
        pixels = photos.pixels(positions[start : start + batch_size])
        padded = np.zeros((batch_size, *pixels.shape[1:]), np.float32)
        padded[: len(pixels)] = pixels
        outputs.append(np.asarray(network.predict_on_batch(padded), np.float32)[: len(pixels)])
    return np.concatenate(outputs)


def _evaluate(inputs: Inputs, shipped: Any, folder: Path) -> dict[str, Metrics]:
    """Metrics of the model as it is shipped, on clean photos, and the tables of photos and of classes."""
    predicted = [
        (photos, predict(shipped, photos, inputs.run.train.finetune.batch_size)) for photos in inputs.photos.values()
    ]
    tables = {
        "predictions.csv": prediction_table(predicted[1:], inputs.cache.class_names),  # all but the training photos
        "per_class.csv": class_table(predicted, inputs.cache.class_names),
    }
    for name, table in tables.items():
        with atomic_path(folder / name) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n", float_format="%.8g")
    return {photos.split: measure(probabilities, photos.labels) for photos, probabilities in predicted}


def _summary(run: TrainRun, number: int) -> dict[str, Any]:
    metrics = load_metrics(run, number)
    tuned = metrics["tuned"]
    return {
        "trial": number,
        "folder": relative(promotion_folder(run, number)),
        "frozen": {"val_accuracy": metrics["frozen"]["val"]["accuracy"]},
        "tuned": {
            "val_accuracy": tuned["val"]["accuracy"],
            "test_accuracy": tuned["test"]["accuracy"],
            "test_top5_accuracy": tuned["test"]["top5_accuracy"],
        },
        "seconds": metrics["seconds"],
    }
