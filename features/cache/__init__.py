"""The feature cache on disk: shards, checksums, keys, manifest; reading it epoch by epoch; its object store.

`from features.cache import FeatureCache, Views` is the way in from Python.
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
    """Loads a name when it is first asked for: both read arrays and tables, which `--help` does not."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
