"""Uninformative features: how many are constant over the clean training photos, and how many photos have equal features."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from features.cache.feature_cache import FeatureCache
from features.dataset.index import DatasetIndex
from features.runtime.atomic import write_text
from features.runtime.errors import HeadhuntError
from features.runtime.log import counted, log

VARIATION = "variation.json"
"""File in a cache's folder with the Variation of its clean training shards; `of` is the digest of these."""

MOSTLY = 0.99
"""Share of photos with the same value from which a feature is mostly constant."""

CANDIDATES = 9
"""Number of photos whose median estimates the usual value of a feature."""

CHUNK_BYTES = 64 << 20
"""Features are read in chunks of at most this size."""

STEPS = {"float16": 2.0**-10, "float32": 1e-5}
"""Relative tolerance by dtype: values that differ by at most this count as equal (about the rounding error)."""


class Variation(NamedTuple):
    """How much the clean features of the training photos vary.

    Of `features` (channels, for maps), `constant` have a single value, and `mostly_constant` the same value in at least 99 % of
    the `photos`. `equal_photos` counts photos whose features are bit-identical to those of a photo with different bytes.
    """

    features: int
    constant: int
    mostly_constant: int
    photos: int
    equal_photos: int

    @property
    def warnings(self) -> list[str]:
        """One sentence per problem."""
        of = f"of {self.features} features"
        if self.photos < 2:
            return []
        if self.constant == self.features:
            return [
                f"All {self.features} features are constant over the {self.photos} clean training photos, so no head can "
                "distinguish them. Check `features.weights` and `features.preprocessing`."
            ]
        found = []
        if self.constant:
            are = "is" if self.constant == 1 else "are"
            found.append(f"{self.constant} {of} {are} constant over the {self.photos} clean training photos.")
        if self.mostly_constant:
            have = "has" if self.mostly_constant == 1 else "have"
            found.append(
                f"{self.mostly_constant} {of} {have} the same value in at least 99 % of the clean training photos."
            )
        if self.equal_photos:
            have = counted(self.equal_photos, "clean training photo has", "clean training photos have")
            found.append(f"{have} the same features as a different photo.")
        return found


def warn_of_constant_features(cache: FeatureCache, index: DatasetIndex) -> Variation:
    """Logs a line per problem with the clean features of a cache, which are measured only once and then remembered."""
    found = known_variation(cache)
    if found is None:
        found = measure_variation(cache, index)
        with suppress(HeadhuntError, OSError):  # a read-only cache is measured again next time
            write_text(cache.folder / VARIATION, json.dumps({"of": _digest(cache), **found._asdict()}) + "\n")
    for line in found.warnings:
        log.print(line, style="yellow")
    return found


def measure_variation(cache: FeatureCache, index: DatasetIndex) -> Variation:
    """Measures the clean training features, reading them in chunks; `index` has the photos' sha256."""
    mapped, width = cache.mapped("train"), cache.feature_shape[-1]
    count, step = len(mapped), STEPS[cache.manifest.dtype]
    chosen = mapped[np.linspace(0, count - 1, CANDIDATES).astype(np.int64)].astype(np.float32)
    usual = np.median(chosen.reshape(-1, width), axis=0)
    lowest, highest = np.full(width, np.inf, np.float32), np.full(width, -np.inf, np.float32)
    unusual, places = np.zeros(width, np.int64), 0
    photos = index.table.loc[cache.images("train").tolist(), "sha256"].tolist()
    alike: dict[bytes, list[str]] = {}
    at_a_time = max(1, CHUNK_BYTES // (4 * int(np.prod(cache.feature_shape))))
    for start in range(0, count, at_a_time):
        part = mapped[np.arange(start, min(start + at_a_time, count))]
        for photo, record in zip(photos[start:], part, strict=False):
            alike.setdefault(hashlib.blake2b(record.tobytes(), digest_size=16).digest(), []).append(photo)
        values = part.reshape(-1, width).astype(np.float32)
        np.minimum(lowest, values.min(0), out=lowest)
        np.maximum(highest, values.max(0), out=highest)
        with np.errstate(invalid="ignore"):  # infinities in a damaged shard, which `features verify` reports
            unusual += (np.abs(values - usual) > step * np.abs(usual)).sum(0)
        places += len(values)
    with np.errstate(invalid="ignore"):
        constant = highest - lowest <= step * np.maximum(np.abs(lowest), np.abs(highest))
    mostly = (unusual <= (1 - MOSTLY) * places) & ~constant
    equal = sum(len(group) for group in alike.values() if len(set(group)) > 1)
    return Variation(width, int(constant.sum()), int(mostly.sum()), count, equal)


def known_variation(cache: FeatureCache) -> Variation | None:
    """The stored Variation if it was measured on the same shards, otherwise None."""
    try:
        content: dict[str, Any] = json.loads((cache.folder / VARIATION).read_text(encoding="utf-8"))
        return Variation(**content) if content.pop("of") == _digest(cache) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _digest(cache: FeatureCache) -> str:
    """sha256 (hex) over the clean training shards."""
    shards = [entry.sha256 for entry in cache.manifest.shards if (entry.split, entry.copy_number) == ("train", 0)]
    return hashlib.sha256("".join(shards).encode()).hexdigest()
