"""A cache of activations at the point where the trained part of the network begins: layers frozen in all phases run only once."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from features.backbones.networks import build_backbone
from features.cache.feature_cache import FeatureCache
from features.cache.loaders import gather
from features.cache.views import Views
from features.config import FeaturesConfig
from features.pooling import columns_of
from features.runtime.errors import UsageError
from train.config import PhaseConfig
from train.finetuning.model import find_cut
from train.finetuning.unfreeze import trained_layers


class Activations:
    """Cached activations of one split on clean photos, by position; `parts` selects parts of pooled ones."""

    def __init__(self, cache: FeatureCache, split: str, parts: str | None = None) -> None:
        self.labels = cache.labels(split)
        self._features = cache.mapped(split)
        self._columns = _columns(cache, parts)

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.floating]:
        """The activations at these positions: (n, *feature_shape) in the cache's dtype."""
        return self._features[positions][..., self._columns]


class ActivationViews:
    """The training activations of each epoch: the copies that `views` (checked against the cache) draw with `seed`; `parts`
    selects parts of pooled ones."""

    def __init__(self, cache: FeatureCache, views: Views, seed: int, parts: str | None = None) -> None:
        self.labels = cache.labels("train")
        self._copies = [cache.mapped("train", copy) for copy in range((views.copies or 0) + 1)]
        self._views = views
        self._seed = seed
        self._columns = _columns(cache, parts)

    def copies_of_epoch(self, epoch: int) -> npt.NDArray[np.int32]:
        """Which copy of each photo epoch `epoch` (from 0) shows, 0 = clean: (n,) int32."""
        return self._views.of_epoch(epoch, len(self.labels), self._seed)

    def shown(self, positions: npt.NDArray[np.int64], copies: npt.NDArray[np.int32]) -> npt.NDArray[np.floating]:
        """The activations at these positions, each from its copy: (n, *feature_shape) in the cache's dtype."""
        return gather(self._copies, positions, copies)[..., self._columns]


def _columns(cache: FeatureCache, parts: str | None) -> Any:
    """The index into the last axis."""
    if parts is None:
        return slice(None)
    return np.concatenate(
        [np.arange(columns.start, columns.stop) for columns in columns_of(cache.parts, parts, "parts")]
    )


def activation_features(features: FeaturesConfig, phases: Collection[PhaseConfig], copies: int) -> FeaturesConfig:
    """The features section of a cache of activations, with `copies` copies, from which all these phases can be trained.

    The backbone is cut after the last layer before everything they train that no path bypasses; if they train only the head, the
    whole backbone with its pooling is cached. Raises UsageError if nothing is left to compute once.
    """
    backbone = build_backbone(features, "float32")
    trained = trained_layers(backbone, [phase.unfreeze for phase in phases])
    section: dict[str, Any] = {"copies": copies}
    if not trained and copies > features.copies:
        raise UsageError(
            f"train.finetune.activation_copies: received {copies}, but the phases train only the head, from the search's own "
            f"cache, which has {features.copies} copies. Lower it, or raise features.copies and run `headhunt features cache`."
        )
    if trained:
        cut = find_cut(backbone, trained)
        if cut is None:
            raise UsageError(
                "train.finetune.activation_copies: the phases train the backbone from its first layer on (or every layer before "
                "that can be bypassed), so that there is nothing to compute once. Set it to 0, or unfreeze fewer layers."
            )
        section |= {"cut": cut, "pooling": "none"}
    return features.model_copy(update=section)
