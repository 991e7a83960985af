"""The feature cache on disk (shards, checksums, keys, manifest), its batches per epoch, and its object store.

In Python, use `from features.cache import FeatureCache, Views`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from features.cache.feature_cache import FeatureCache
    from features.cache.views import Views

__all__ = ["FeatureCache", "Views"]

_PLACES = {"FeatureCache": "features.cache.feature_cache", "Views": "features.cache.views"}


def __getattr__(name: str) -> Any:
    """Imports a name on first use: both import numpy and pandas, which would slow down `--help`."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
