"""Features as vectors, standardised with the mean and variance of the clean training photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Moments = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Mean and variance of every feature: (feature_dim,) float32 each."""

CHUNK_BYTES = 64 << 20
"""Maps are averaged in chunks of at most this size."""

VARIANCE_FLOOR = 1e-4
"""Smallest variance to standardise a feature with, as a share of the mean variance of its part: a feature that is constant on the
clean training photos must not explode on other photos."""


def feature_moments(features: npt.NDArray[np.floating], widths: Sequence[int] = ()) -> Moments:
    """Mean and variance of every feature over photos (and positions, for maps): (feature_dim,) float32 each.

    `widths` are the numbers of columns of the record's parts: parts differ in scale, so each has its own variance floor.
    """
    flat = np.asarray(features, np.float32).reshape(-1, features.shape[-1])
    variance = flat.var(0, dtype=np.float64)
    ends = np.cumsum(widths or [flat.shape[1]])[:-1]
    for part in np.split(variance, ends):  # views, changed in place
        np.maximum(part, max(VARIANCE_FLOOR * float(part.mean()), 1e-12), out=part)
    return flat.mean(0, dtype=np.float64).astype(np.float32), variance.astype(np.float32)


def standardised(features: Any, moments: Moments) -> npt.NDArray[np.float32]:
    """Features (n, *feature_shape) as standardised vectors (n, dim) float32; see `averaged`."""
    mean, variance = moments
    vectors = averaged(features, len(mean))
    vectors -= mean
    vectors /= np.sqrt(variance)
    return vectors


def averaged(features: Any, width: int, rows: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float32]:
    """The first `width` features of (n, *feature_shape), an array or MappedFeatures, as vectors (n, width) float32, for all rows
    or those in `rows`; maps are averaged over their positions."""
    count, at_a_time = len(features), max(1, CHUNK_BYTES // (4 * int(np.prod(features.shape[1:]))))
    wanted = np.arange(count) if rows is None else rows
    vectors = np.empty((len(wanted), width), np.float32)
    for start in range(0, len(wanted), at_a_time):
        part = np.asarray(features[wanted[start : start + at_a_time]], np.float32)[..., :width]
        vectors[start : start + at_a_time] = part.reshape(len(part), -1, width).mean(1)
    return vectors
