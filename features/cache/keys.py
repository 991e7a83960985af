"""A cache's key, a digest of everything that its numbers depend on, and explanations of how two keys differ."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from features.augmentation.augment import resolve_policy
from features.augmentation.policies import augmentation_of, section_of
from features.backbones.projection import fitted_digest, widest_covariance
from features.backbones.table import (
    compute_dtype,
    correction_key_parts,
    image_size,
    is_file,
    pooling,
    preprocessing,
    weights_digest,
)
from features.cache.manifest import FORMAT_VERSION, MANIFEST, Manifest, read_manifest
from features.config import FeaturesConfig, FeaturesRun
from features.dataset.index import DatasetIndex
from features.runtime.errors import CacheError

AUGMENTED = frozenset({"augmentation", "seed"})
"""The parts that affect only augmented copies: caches that differ only in these share their clean shards."""

R = TypeVar("R", bound=FeaturesRun)

LONGEST = 60
"""Most characters of a part's value that a message shows."""


def key_parts(run: FeaturesRun, index: DatasetIndex) -> dict[str, Any]:
    """Everything that the cached numbers depend on, by name; of several policies, only the first.

    The number of copies is not included: a cache grows by computing more of them.
    """
    config = section_of(run.features)
    projected = {"projection": fitted_digest(index)} if widest_covariance(pooling(config)) else {}
    return {
        "format_version": FORMAT_VERSION,
        "images": index.fingerprint,
        "crop_to_bbox": getattr(run.dataset, "crop_to_bbox", False),
        "image_size": list(image_size(config)),
        "backbone": "file" if config.backbone.endswith(".keras") else config.backbone.lower(),
        "weights": weights_digest(config),
        "preprocessing": preprocessing(config),
        "cut": config.cut,
        "pooling": pooling(config),
        **projected,
        **correction_key_parts(config),
        "dtype": config.dtype,
        "compute": compute_dtype(config),
        "batch_size": config.batch_size,
        "images_per_shard": config.images_per_shard,
        "augmentation": augmentation_parts(config),
        "seed": config.seed,
    }


def augmentation_parts(config: FeaturesConfig) -> dict[str, Any]:
    """The first policy, and the backend that draws its views if these depend on it."""
    policy = resolve_policy(augmentation_of(config))
    draws = {} if policy.merged else {"draws": "jax" if config.workers.gpus else "tensorflow"}
    return {**policy.model_dump(mode="json"), **draws}


def cache_folder(run: FeaturesRun, key: str) -> Path:
    """`cache/<first 16 digits of the key>`."""
    return run.workdir / "cache" / key[:16]


def for_workers(run: R) -> R:
    """The run for workers on other machines: absolute paths, and the compute dtype of the machine that made the key."""
    config = run.features
    paths = {"backbone": config.backbone} if is_file(config) else {}
    if config.weights not in ("imagenet", "random"):
        paths["weights"] = config.weights
    absolute = {name: str(Path(path).resolve()) for name, path in paths.items()}
    features = config.model_copy(update={**absolute, "compute": compute_dtype(config)})
    return run.model_copy(update={"features": features, "workdir": run.workdir.resolve()})


def changed_parts(parts: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of the parts in which two keys differ."""
    return [name for name in parts if _plain(parts[name]) != _plain(other.get(name))]


def sound_manifests(run: FeaturesRun) -> list[tuple[Path, Manifest]]:
    """The finished caches of a run that can be read, as (folder, manifest)."""
    found = []
    for path in sorted((run.workdir / "cache").glob(f"*/{MANIFEST}")):
        try:
            found.append((path.parent, read_manifest(path.parent)))
        except CacheError:  # damaged or of another format
            continue
    return found


def explain_key(run: FeaturesRun, parts: dict[str, Any]) -> str:
    """How the most similar finished cache differs from the wanted one, as a clause; empty when there is none.

    `the closest, 0123456789abcdef, differs in image_size (has [224, 224], wanted [520, 520])`
    """
    others = [(changed_parts(parts, manifest.key_parts), folder, manifest) for folder, manifest in sound_manifests(run)]
    if not others:
        return ""
    changed, folder, manifest = min(others, key=lambda other: (len(other[0]), other[1].name))
    if not changed:
        return ""
    shown = {name: _shown(manifest.key_parts.get(name), parts[name]) for name in changed}
    named = [f"{name} (has {has}, wanted {wanted})" for name, (has, wanted) in shown.items()]
    return f"the closest, {folder.name}, differs in {', '.join(named)}"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _shown(has: Any, wanted: Any) -> tuple[str, str]:
    """Two different values as JSON, each cut to LONGEST characters around the first difference."""
    texts = [json.dumps(value) for value in (has, wanted)]
    start = 0
    if max(map(len, texts)) > LONGEST:
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False))
        start = max(0, sum(1 for _ in alike) - LONGEST // 2)
    cut = [f"{'…' if start else ''}{text[start:]}" for text in texts]
    first, second = (text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…" for text in cut)
    return first, second
