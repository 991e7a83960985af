"""Top-5 accuracy: of five or fewer classes it is always 100 %, and is not shown."""

from __future__ import annotations

from features.config import FeaturesRun
from features.dataset.index import load_index
from features.runtime.errors import HeadhuntError

TOP = 5
"""Classes that are looked at."""


def says_something(classes: int) -> bool:
    """Whether there are so many classes that top-5 accuracy can be below 100 %."""
    return classes > TOP


def is_shown(run: FeaturesRun) -> bool:
    """Whether it says something of the run's classes; without an index that is assumed."""
    try:
        return says_something(len(load_index(run).class_names))
    except HeadhuntError:
        return True
