"""The objective of a run: heads of its space, or its hypermodel."""

from __future__ import annotations

from pathlib import Path

from search.config import SearchRun
from search.hypermodels.objective import HypermodelObjective
from search.hypermodels.space import HypermodelSpace
from search.population.feature_objective import FeatureObjective, TrialSpace
from search.population.heads_objective import HeadsObjective
from search.population.sources import Caches
from search.searched_views import resolved_space


def open_objective(run: SearchRun, caches: Caches | None = None) -> FeatureObjective:
    """The run's objective on its caches. Raises UsageError for views or a function that do not exist."""
    caches = Caches(run) if caches is None else caches
    space = open_space(run)
    return (
        HypermodelObjective(run, space, caches) if isinstance(space, HypermodelSpace) else HeadsObjective(run, caches)
    )


def open_space(run: SearchRun) -> TrialSpace:
    """The run's search space, or its hypermodel from the working directory or an installed package."""
    function = run.search.hypermodel
    if function is None:
        return resolved_space(run)
    return HypermodelSpace(function, Path.cwd(), run.search.hypermodel_values)
