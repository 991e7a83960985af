"""What trials train on: the caches of all augmentation policies in use, as one array of features in memory.

The caches differ only in their augmented copies. Row 0 of the array holds the clean photos, then come each policy's copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.audit.moments import feature_moments
from features.augmentation.policies import not_cached, policy_copies
from features.cache.feature_cache import FeatureCache, cache_for
from features.cache.views import Views
from features.pooling import Layout, columns_of
from search.config import SearchRun
from search.searched_views import check_choices, choices, resolved_space
from search.trial import TrialConfig


class Source(NamedTuple):
    """What a worker reads: the first `copies` augmented copies of the cache in `folder`, made with `policy`."""

    policy: str
    folder: Path
    copies: int


class Caches:
    """The caches of a run by policy; the first is the configuration's own. Raises UsageError for views that are not cached."""

    def __init__(self, run: SearchRun) -> None:
        check_choices(run)
        self.own = cache_for(run)
        own = self.own.manifest.policy
        self._caches = {own: self.own}
        self._configured = policy_copies(run.features)
        domains = {name: choices(domain) for name, domain in (resolved_space(run).views or {}).items()}
        given = run.search.views or Views()
        drawn = [str(policy) for policy in domains.get("policy", [given.policy or own])]
        for policy in [*drawn, *filter(None, [given.policy])]:
            if policy not in self._caches:
                self._caches[policy] = cache_for(run, policy)
        self.views = self.checked(given)
        self.open_views = self.views.model_copy(update={"copies": given.copies})  # None: all copies of the drawn policy
        several = {policy: self._configured[policy] for policy in drawn if policy in self._configured}
        self.limits = several if "copies" in domains and len(set(several.values())) > 1 else {}
        most = max(drawn, key=lambda policy: self._caches[policy].copies)
        for copies in domains.get("copies", []):
            self.checked(given.model_copy(update={"policy": most, "copies": copies}))
        for policy in drawn if "copies" not in domains else ():
            self.checked(given.model_copy(update={"policy": policy}))
        self._copies = None if "copies" in domains else given.copies

    @property
    def augmented(self) -> str | None:
        """The first policy that has copies, or None."""
        return next((policy for policy, copies in self._configured.items() if copies), None)

    @property
    def key(self) -> str | dict[str, str]:
        """The key of the cache; for several caches, their keys by policy."""
        return self.own.key if len(self._caches) == 1 else {name: cache.key for name, cache in self._caches.items()}

    @property
    def sources(self) -> tuple[Source, ...]:
        """What workers hold in memory."""
        return tuple(
            Source(
                name, cache.folder.resolve(), cache.copies if self._copies is None else min(self._copies, cache.copies)
            )
            for name, cache in self._caches.items()
        )

    def width_of(self, config: TrialConfig) -> int:
        """The number of features that a trial's head sees (per position, for feature maps)."""
        return self.own.shape_of(config.features.parts)[-1]

    def of(self, views: Views) -> FeatureCache:
        """The cache of these views."""
        return self._caches[views.policy or self.own.manifest.policy]

    def checked(self, views: Views) -> Views:
        """These views with policy and copies filled in; UsageError if they are not cached."""
        policy = views.policy or self.own.manifest.policy
        cache = self._caches.get(policy)
        if cache is None:
            raise not_cached(policy, self._configured)
        if views.copies is None:  # copies beyond the configured number change no trial
            copies = min(cache.copies, self._configured.get(policy, cache.copies))
            views = views.model_copy(update={"copies": copies})
        return views.checked(cache.copies, policy).model_copy(update={"policy": policy})

    def drawn(self, views: Views) -> Views:
        """The views that a trial drew, filled in; `copies` is capped at what its policy has (see `limits`)."""
        limit = self.limits.get(views.policy or self.own.manifest.policy)
        if limit is not None and views.copies is not None:
            views = views.model_copy(update={"copies": min(views.copies, limit)})
        return self.checked(views)


@dataclass(frozen=True, eq=False)
class Features:
    """Features in memory or on a device: train (rows, n, *feature_shape) and val (m, *feature_shape) in the stored dtype, labels
    int32.

    `moments` are those of the clean training features; `first_rows` maps each policy to the row of `train` with its copy 1. The
    last `zeros` features are zero padding, which `moments` do not include. `parts` describes a record's columns.
    """

    train: Any
    train_labels: Any
    val: Any
    val_labels: Any
    classes: int
    moments: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
    first_rows: Mapping[str, int] = field(default_factory=dict)
    zeros: int = 0
    parts: Layout = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one photo's features, without the zeros."""
        *outer, width = self.val.shape[1:]
        return (*outer, width - self.zeros)

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of columns of each part of a record."""
        return tuple(width for _, width in self.parts)

    def columns(self, parts: str | None) -> tuple[slice, ...]:
        """The columns of these parts; a full slice for None."""
        return (slice(None),) if parts is None else tuple(columns_of(self.parts, parts, "features.parts"))

    def with_zeros(self, zeros: int) -> Features:
        """The same features, rows padded with `zeros` zeros."""
        if zeros == 0:
            return self
        return replace(self, train=_widened(self.train, zeros), val=_widened(self.val, zeros), zeros=zeros)

    def with_part(self, train_share: float) -> Features:
        """The same with this share of every class's training photos: at least one per class, evenly spread over their order."""
        if train_share == 1:
            return self
        kept = []
        for label in np.unique(self.train_labels):
            rows = np.flatnonzero(self.train_labels == label)
            places = np.linspace(0, len(rows), max(1, round(train_share * len(rows))), endpoint=False)
            kept.append(rows[places.astype(np.int64)])
        chosen = np.sort(np.concatenate(kept))
        train = self.train[:, chosen]
        return replace(
            self, train=train, train_labels=self.train_labels[chosen], moments=feature_moments(train[0], self.widths)
        )

    def rows_of_epoch(self, views: Views, epoch: int, seed: int) -> npt.NDArray[np.int32]:
        """The row of `train` in which epoch `epoch` (from 0) sees each photo: (n,) int32."""
        copies = views.of_epoch(epoch, len(self.train_labels), seed)
        first = 1 if views.policy is None else self.first_rows[views.policy]
        return np.where(copies == 0, 0, copies + (first - 1)).astype(np.int32)


def load_features(sources: tuple[Source, ...]) -> Features:
    """Reads the features that trials train on into memory."""
    own = FeatureCache.open(sources[0].folder)
    clean, labels = own.arrays("train")
    train = np.empty((1 + sum(source.copies for source in sources), *clean.shape), clean.dtype)
    train[0] = clean
    first_rows, row = {}, 1
    for source in sources:
        first_rows[source.policy] = row
        cache = FeatureCache.open(source.folder)
        for copy in range(1, source.copies + 1):
            train[row], _ = cache.arrays("train", copy)
            row += 1
    val, val_labels = own.arrays("val")
    moments = feature_moments(clean, own.part_widths())
    return Features(train, labels, val, val_labels, len(own.class_names), moments, first_rows, parts=own.parts)


def zeros_for_cache_lines(shape: tuple[int, ...]) -> int:
    """The number of zeros that pad a row of float32 features to an odd number of cache lines (64 bytes).

    A weight's gradient reads the rows of a batch side by side. Rows whose length is a power of two, as for most backbones, map to
    the same few sets of the processor's cache and evict each other: that product took 1.5 to 1.8 times as long.
    """
    if len(shape) != 1:
        return 0
    lines = -(-shape[0] // 16)
    return 16 * (lines + 1 - lines % 2) - shape[0]


def _widened(values: npt.NDArray[np.floating], zeros: int) -> npt.NDArray[np.floating]:
    wider = np.zeros((*values.shape[:-1], values.shape[-1] + zeros), values.dtype)
    wider[..., : values.shape[-1]] = values
    return wider
