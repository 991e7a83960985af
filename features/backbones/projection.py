"""Projection: the first principal components of a map's channels, which covariance pooling is taken of.

It is fitted once for a cache, on clean training maps. Photos are taken by the order of their sha256, blocks are added up in one
order, and everything runs on one thread, so that workers, kills and the machine's number of cores change no bit.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from features.pooling import Part, parse_pooling

if TYPE_CHECKING:
    from features.dataset.index import DatasetIndex

FITTED = 2048
"""Training photos that the components are fitted on, at most: maps have dozens of places each, and more photos change nothing."""


@dataclass(frozen=True)
class Projection:
    """The bytes of a projection's file. Equal bytes are one projection, wherever they lie."""

    data: bytes

    @cached_property
    def kernel(self) -> npt.NDArray[np.float32]:
        """(channels, components) float32: orthonormal columns, that of the largest variance first."""
        kernel: npt.NDArray[np.float32] = np.load(io.BytesIO(self.data), allow_pickle=False)
        return kernel

    @property
    def sha256(self) -> str:
        """Of the file (hex)."""
        return hashlib.sha256(self.data).hexdigest()


class MapMoments(NamedTuple):
    """Sums over some maps: the number of their places, `total` (channels,) and `products` (channels, channels) float64."""

    places: int
    total: npt.NDArray[np.float64]
    products: npt.NDArray[np.float64]


def widest_covariance(pooling: str) -> int:
    """The largest number of channels that a part of this pooling takes a covariance of; 0 without any."""
    return max((int(part.number) for part in parse_pooling(pooling) if part.kind == "covariance"), default=0)


def fitted_rows(index: DatasetIndex) -> list[int]:
    """The rows of the index that projections are fitted on: training photos by the order of their sha256."""
    table = index.of_split("train")
    return [int(row) for row in table.index[np.argsort(table["sha256"].to_numpy(), kind="stable")][:FITTED]]


def fitted_digest(index: DatasetIndex) -> str:
    """What identifies those photos: sha256 (hex) of theirs."""
    return hashlib.sha256("".join(index.table["sha256"].iloc[fitted_rows(index)]).encode()).hexdigest()


def moments_of(maps: npt.NDArray[np.float32]) -> MapMoments:
    """The sums of maps (batch, h, w, channels) float32."""
    from threadpoolctl import threadpool_limits

    flat = maps.reshape(-1, maps.shape[-1])
    with threadpool_limits(1):
        return MapMoments(len(flat), flat.sum(0, dtype=np.float64), (flat.T @ flat).astype(np.float64))


def add_moments(moments: Sequence[MapMoments]) -> MapMoments:
    """The sums of sums, in their order."""
    places, total, products = moments[0]
    for other in moments[1:]:
        places, total, products = places + other.places, total + other.total, products + other.products
    return MapMoments(places, total, products)


def fit(moments: MapMoments, components: int) -> Projection:
    """The eigenvectors of the channels' covariance with the largest eigenvalues, `components` of them or as many as there are
    channels; of each the largest entry is positive, since eigenvectors have no sign."""
    from scipy.linalg import eigh
    from threadpoolctl import threadpool_limits

    mean = moments.total / moments.places
    covariance = moments.products / moments.places - np.outer(mean, mean)
    channels = len(mean)
    kept = Part("covariance", components).components(channels)
    with threadpool_limits(1):
        _, vectors = eigh(covariance, subset_by_index=[channels - kept, channels - 1])
    kernel = vectors[:, ::-1]
    largest = np.abs(kernel).argmax(0)
    kernel = kernel * np.sign(kernel[largest, np.arange(kept)])
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(kernel, np.float32), allow_pickle=False)
    return Projection(file.getvalue())
