"""Projection onto the first principal components of a map's channels, applied before covariance pooling.

It is fitted once per cache, on clean training maps. Photos are taken in the order of their sha256, blocks are summed in a fixed
order, and everything runs on one thread, so that the result does not depend on workers, kills or the number of cores, to the bit.
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
"""Most training photos to fit the components on: each map has dozens of positions, so more photos change nothing."""


@dataclass(frozen=True)
class Projection:
    """The bytes of a projection's file. Projections with equal bytes are equal."""

    data: bytes

    @cached_property
    def kernel(self) -> npt.NDArray[np.float32]:
        """(channels, components) float32: orthonormal columns, in order of decreasing variance."""
        kernel: npt.NDArray[np.float32] = np.load(io.BytesIO(self.data), allow_pickle=False)
        return kernel

    @property
    def sha256(self) -> str:
        """The sha256 (hex) of the file."""
        return hashlib.sha256(self.data).hexdigest()


class MapMoments(NamedTuple):
    """Sums over maps: the number of positions, `total` (channels,) and `products` (channels, channels) float64."""

    places: int
    total: npt.NDArray[np.float64]
    products: npt.NDArray[np.float64]


def widest_covariance(pooling: str) -> int:
    """The largest number of channels in a covariance of this pooling; 0 if it has none."""
    return max((int(part.number) for part in parse_pooling(pooling) if part.kind == "covariance"), default=0)


def fitted_rows(index: DatasetIndex) -> list[int]:
    """The rows of the index that projections are fitted on: training photos in the order of their sha256, at most FITTED."""
    table = index.of_split("train")
    return [int(row) for row in table.index[np.argsort(table["sha256"].to_numpy(), kind="stable")][:FITTED]]


def fitted_digest(index: DatasetIndex) -> str:
    """sha256 (hex) that identifies these photos, over their sha256."""
    return hashlib.sha256("".join(index.table["sha256"].iloc[fitted_rows(index)]).encode()).hexdigest()


def moments_of(maps: npt.NDArray[np.float32]) -> MapMoments:
    """The sums of maps (batch, h, w, channels) float32."""
    from threadpoolctl import threadpool_limits

    flat = maps.reshape(-1, maps.shape[-1])
    with threadpool_limits(1):
        return MapMoments(len(flat), flat.sum(0, dtype=np.float64), (flat.T @ flat).astype(np.float64))


def add_moments(moments: Sequence[MapMoments]) -> MapMoments:
    """The total of several sums, added in the given order."""
    places, total, products = moments[0]
    for other in moments[1:]:
        places, total, products = places + other.places, total + other.total, products + other.products
    return MapMoments(places, total, products)


def fit(moments: MapMoments, components: int) -> Projection:
    """The `components` (at most the number of channels) eigenvectors of the channels' covariance with the largest eigenvalues.
    Eigenvectors have no sign, so each is flipped to make its largest entry positive."""
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
