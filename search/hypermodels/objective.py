"""A hypermodel as an objective: its models are trained one at a time with Keras's own `fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from features.cache.views import Views
from features.runtime.errors import UsageError
from features.runtime.log import log
from search.config import SearchRun
from search.hypermodels.function import CombinationError
from search.hypermodels.model import build_model, check_promotable, choose_label_form
from search.hypermodels.space import HypermodelSpace
from search.hypermodels.training import train_hypermodel
from search.population.feature_objective import FeatureObjective
from search.population.sources import Caches
from search.population.task import Task
from search.trial import TrialResult


class HypermodelObjective(FeatureObjective):
    """Trials of `search.hypermodel`, whose module is in the working directory or an installed package."""

    space: HypermodelSpace
    threads = False

    def __init__(self, run: SearchRun, space: HypermodelSpace, caches: Caches) -> None:
        super().__init__(run, space, caches)
        self.function, self.folder = space.digest, Path.cwd()

    def check(self) -> None:
        """Raises UsageError if the first combination's model does not accept the features, cannot be trained, or could not be
        promoted; logs other notes for the user."""
        choice = self.space.first(Views(), 1, 0).hypermodel
        assert choice is not None
        shape, classes = self.caches.own.feature_shape, len(self.caches.own.class_names)
        try:
            model = build_model(choice, Path.cwd(), shape, classes, self.run.search.seed)
            choose_label_form(model, shape, classes)
            check_promotable(choice, model, shape)
        except CombinationError as error:
            raise UsageError(f"search.hypermodel: {error}.") from error
        for note in self.space.notes:
            log.print(f"search.hypermodel: {note}", style="yellow")

    def identity(self, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """The shared settings, the hypermodel's name and the digest of its function."""
        digest = self.space.digest[:16]
        if known is not None and known.get("function") == self.space.earlier_digest[:16]:
            digest = known["function"]  # stored by a version whose digest did not cover the whole module
        name = self.run.search.model_dump(mode="json", include={"hypermodel"})
        return {**super().identity(known), **name, "function": digest}

    @property
    def trainer(self) -> Callable[[Task], list[TrialResult]]:
        """Trains with Keras's own `fit`."""
        return train_hypermodel
