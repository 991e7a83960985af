"""Heads as an objective: trained as lanes of one compiled program; probes are solved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search.config import SearchRun
from search.population.feature_objective import FeatureObjective
from search.population.sources import Caches
from search.population.structure import chunks
from search.population.task import Task, train_trials
from search.searched_views import resolved_space
from search.trial import TrialConfig, TrialResult


class HeadsObjective(FeatureObjective):
    """Trials of `search.space`."""

    def __init__(self, run: SearchRun, caches: Caches) -> None:
        super().__init__(run, resolved_space(run), caches)

    def check(self) -> None:
        """Does nothing: the space was validated with the configuration."""

    def identity(self, known: Mapping[str, Any] | None) -> dict[str, Any]:
        """The shared settings, the first trials, and the space including drawn views."""
        first = self.run.search.model_dump(mode="json", include={"first"})
        if known is not None and "first" not in known:  # a study older than first trials continues without them
            first = {}
        drawn = resolved_space(self.run).model_dump(mode="json")
        if not drawn["features"]:  # as in studies older than feature parts
            del drawn["features"]
        copies = {"copies": self.caches.limits} if self.caches.limits else {}
        return {**super().identity(known), **first, "space": drawn, **copies}

    def pieces(self, configs: Sequence[TrialConfig], until: int | None = None) -> list[list[int]]:
        """Tasks of up to `lanes` trials of one structure that stop at the same epoch. Probes come first, each alone: they take
        longest."""
        pieces = [[place] for place, config in enumerate(configs) if config.is_probe]
        stops = [config.epochs if until is None else min(until, config.epochs) for config in configs]
        classes = len(self.caches.own.class_names)
        for stop in sorted(set(stops)):
            group = [place for place, config in enumerate(configs) if stops[place] == stop and not config.is_probe]
            found = chunks([configs[place] for place in group], self.lanes, self.caches.width_of, classes)
            pieces += [[group[place] for place in piece] for piece in found]
        return pieces

    @property
    def trainer(self) -> Callable[[Task], list[TrialResult]]:
        """Trains without TensorFlow."""
        return train_trials
