"""Top-5 accuracy: with five or fewer classes it is always 100 % and not shown."""

from __future__ import annotations

from features.config import FeaturesRun
from features.dataset.index import load_index
from features.runtime.errors import HeadhuntError

TOP = 5
"""Number of top classes considered."""


def is_informative(classes: int) -> bool:
    """Whether there are enough classes for top-5 accuracy to be below 100 %."""
    return classes > TOP


def is_shown(run: FeaturesRun) -> bool:
    """Whether top-5 accuracy is informative for the run's classes; true if there is no index."""
    try:
        return is_informative(len(load_index(run).class_names))
    except HeadhuntError:
        return True
