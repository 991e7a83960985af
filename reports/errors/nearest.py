"""The training photos whose features are most similar to those of given test photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from features.cache.feature_cache import cache_for
from features.runtime.errors import CacheError
from reports.config import Run
from train.baselines.probes import clean_features, neighbours
from train.promotion.predictions import Predictions


class Nearest(NamedTuple):
    """A training photo: its row in the index, and the cosine similarity of its clean features to those of the test photo."""

    row: int
    cosine: float


def collect(run: Run, found: Predictions, places: Sequence[int]) -> list[Nearest]:
    """The nearest training photo of each test photo at these positions in the predictions.

    Raises CacheError if the cache is missing or has other test photos than the predictions.
    """
    cache = cache_for(run)
    if not np.array_equal(cache.labels("test"), found.labels):
        raise CacheError("the predictions are for other test photos than the cache")
    queries = clean_features(cache, "test")[np.asarray(places, np.int64)]
    positions, cosines = neighbours(queries, clean_features(cache, "train"), 1, same=False)
    rows = cache.images("train")
    return [
        Nearest(int(rows[place]), float(cosine)) for place, cosine in zip(positions[:, 0], cosines[:, 0], strict=True)
    ]
