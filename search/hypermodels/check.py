"""What a hypermodel must be, found before its search starts."""

from __future__ import annotations

from pathlib import Path

from features.cache.views import Views
from features.runtime.errors import UsageError
from features.runtime.log import log
from search.config import SearchRun
from search.hypermodels.function import CombinationError
from search.hypermodels.model import build_model, check_promotable, form_of_labels
from search.hypermodels.space import HypermodelSpace
from search.population.sources import Caches


def check_first_model(space: HypermodelSpace, run: SearchRun, caches: Caches) -> None:
    """Raises UsageError where the first combination's model does not take the features, cannot be trained, or could not be
    promoted; says what else a user should know."""
    choice = space.first(Views(), 1, 0).hypermodel
    assert choice is not None
    shape, classes = caches.own.feature_shape, len(caches.own.class_names)
    try:
        model = build_model(choice, Path.cwd(), shape, classes, run.search.seed)
        form_of_labels(model, shape, classes)
        check_promotable(choice, model, shape)
    except CombinationError as error:
        raise UsageError(f"search.hypermodel: {error}.") from error
    for note in space.notes:
        log.print(f"search.hypermodel: {note}", style="yellow")
