"""`features info`: what is cached and from what, how fast it was built, and the balance of classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from features.cache.feature_cache import FeatureCache
from features.cache.shards import shard_bytes
from features.config import FeaturesRun
from features.dataset.index import SPLITS, DatasetIndex
from features.runtime.log import relative


def cache_facts(run: FeaturesRun, index: DatasetIndex, cache: FeatureCache) -> dict[str, Any]:
    """The `--json` object of `features info`, without `policies`, `views` and the contact sheets.

    `key_parts` is everything that the cached numbers depend on, `last_build` the last computation of `features cache` (None if it
    was stopped before its end), `class_balance` the result of `class_balance`.
    """
    manifest = cache.manifest
    return {
        "cache": relative(cache.folder),
        "key": cache.key,
        "backbone": run.features.backbone,
        "image_size": manifest.key_parts["image_size"],
        "compute": manifest.key_parts["compute"],
        "feature_shape": list(cache.feature_shape),
        "parts": [list(part) for part in cache.parts],
        "dtype": manifest.dtype,
        "policy": manifest.policy,
        "copies": cache.copies,
        "classes": len(cache.class_names),
        "splits": manifest.splits,
        "bytes": sum(shard_bytes(e.records, cache.feature_shape, manifest.dtype) for e in manifest.shards),
        "images": len(index.table),
        "shards": len(manifest.shards),
        "key_parts": manifest.key_parts,
        "last_build": _last_build(cache.folder),
        "class_balance": class_balance(index),
    }


def class_balance(index: DatasetIndex) -> dict[str, dict[str, dict[str, Any]]]:
    """By split: the `smallest`, `median` and `largest` class as {"class": name, "photos": count}.

    `median` is the middle class by size, the smaller of two; equal sizes are ordered by label.
    """
    balance = {}
    for split in SPLITS:
        counts = index.of_split(split)["label"].value_counts()
        sizes = sorted((int(counts.get(label, 0)), label) for label in range(len(index.class_names)))
        places = {"smallest": 0, "median": (len(sizes) - 1) // 2, "largest": -1}
        balance[split] = {
            name: {"class": index.class_names[sizes[place][1]], "photos": sizes[place][0]}
            for name, place in places.items()
        }
    return balance


def lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The facts as rows for the terminal: (name, value)."""
    for name, value in facts.items():
        title = name.replace("_", " ")
        match name:
            case "bytes":
                yield title, f"{value:,}"
            case "key_parts":
                for part, what in value.items():
                    yield f"key: {part.replace('_', ' ')}", str(what)
            case "policies":
                yield "copies by policy", ", ".join(f"{policy} {copies}" for policy, copies in value.items())
            case "views":
                for policy, accuracy in value.items():
                    yield f"probe on {policy} views", f"accuracy {accuracy:.4f} on the clean validation photos"
            case "contact_sheets":
                for policy, path in list(value.items())[1:]:
                    yield f"contact sheet of {policy}", str(path)
            case "parts":
                yield title, ", ".join(f"{name} {width}" for name, width in value) or "none (unpooled maps)"
            case "splits":
                yield title, ", ".join(f"{count:,} {split}" for split, count in value.items())
            case "last_build":
                yield title, "unknown" if value is None else _build_line(value)
            case "class_balance":
                for split, found in value.items():
                    sizes = (f"{which} {one['photos']} ({one['class']})" for which, one in found.items())
                    yield f"classes of {split}", ", ".join(sizes)
            case _:
                yield title, str(value)


def _build_line(build: dict[str, Any]) -> str:
    return f"{build['shards_written']} shards in {build['seconds']:.1f} s, {build['images_per_second']:.1f} images/s"


def _last_build(folder: Path) -> dict[str, Any] | None:
    try:
        built = json.loads((folder / "build.json").read_text(encoding="utf-8"))
        return {name: built[name] for name in ("seconds", "images_per_second", "shards_written")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
