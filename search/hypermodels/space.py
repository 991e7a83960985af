"""A KerasTuner `build(hp)` as a search space for any sampler.

The function is run for every choice of every hyperparameter to discover the parameters and their conditions. In a trial, its `hp`
calls draw from Optuna, so that the trial records exactly what its model was built from. A hyperparameter that appears only for a
combination of values of two others is drawn at random by every sampler.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from features.cache.views import Views
from features.runtime.errors import UsageError
from features.runtime.nearest import suggest as near
from search.hypermodels.function import CombinationError, Hypermodel
from search.hypermodels.parameters import Names, drawn_hyperparameters
from search.parameters import Parameter, Range
from search.trial import HypermodelChoice, TrialConfig

if TYPE_CHECKING:
    import optuna

PROBED = 8
"""Ranges with more values than this are probed only at their ends, and no conditions are derived from them."""


class Built(NamedTuple):
    """One run of the function: the values it drew, the parameters it drew or met in an inactive scope, and, if it returned no
    model, why."""

    values: dict[str, Any]
    met: list[Parameter]
    failure: str | None


class HypermodelSpace:
    """The space of a function; its module is in `folder` or an installed package. Parameters in `held` are fixed, not drawn.

    Raises UsageError if there is no such function, if no combination gives a model, and for an unknown name in `held`.
    """

    def __init__(self, name: str, folder: Path, held: Mapping[str, Any] | None = None) -> None:
        self.function = Hypermodel(name, folder)
        self._held = dict(held or {})
        self._all, self._names, self._tried = _discover(self.function)
        failures = [each.failure for each in self._tried if each.failure]
        if len(failures) == len(self._tried):
            raise UsageError(f"search.hypermodel: {failures[0]}. None of the combinations tried gives a model.")
        self._parameters = tuple(_without(self._all, self._held))

    @property
    def digest(self) -> str:
        """sha256 (hex) of the function's module and its parameters: a study is not resumed with another function."""
        return self.function.digest((self._all, self._held))

    @property
    def earlier_digest(self) -> str:
        """The digest stored by earlier versions."""
        return self.function.earlier_digest(self._all)

    @property
    def notes(self) -> list[str]:
        """What a user should know before the search, one sentence each."""
        failures = [each.failure for each in self._tried if each.failure]
        found = [self.function.note] if self.function.note else []
        if failures:
            found.append(
                f"{len(failures)} of the {len(self._tried)} combinations tried give no model, e.g. {failures[0]}. Such trials "
                "fail and the search continues."
            )
        return found

    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters that the function may draw, in order of discovery, parents first."""
        return self._parameters

    def size(self) -> float:
        """The number of distinct trials; infinite with a continuous range."""
        from search.samplers.grid import Grid

        infinite = any(math.isinf(parameter.size()) for parameter in self._parameters)
        return float("inf") if infinite else Grid(self._parameters).size

    def suggest(self, trial: optuna.Trial, views: Views, epochs: int, seed: int) -> TrialConfig:
        """Draws a trial by building its model, which is then discarded; if there is no model, the trial fails in training.

        A drawn `batch_size` becomes the trial's.
        """

        def draw(one: Parameter) -> Any:
            return self._held[one.name] if one.name in self._held else one.draw(trial)

        return self._config(_build(self.function, draw, dict(self._names)), views, epochs, seed)

    def first(self, views: Views, epochs: int, seed: int) -> TrialConfig:
        """The first of the tried combinations that gives a model."""
        return self._config(next(each for each in self._tried if each.failure is None), views, epochs, seed)

    def _config(self, built: Built, views: Views, epochs: int, seed: int) -> TrialConfig:
        choice = HypermodelChoice(function=self.function.name, values=built.values)
        batch_size = built.values.get("batch_size", TrialConfig.model_fields["batch_size"].default)
        return TrialConfig(hypermodel=choice, batch_size=batch_size, views=views, epochs=epochs, seed=seed)


def _without(parameters: tuple[Parameter, ...], held: Mapping[str, Any]) -> list[Parameter]:
    """The parameters left to draw when some are fixed; UsageError for an unknown name."""
    names = [one.name for one in parameters]
    for unknown in held.keys() - set(names):
        raise UsageError(
            f"search.hypermodel_values: unknown hyperparameter {unknown!r}; it must be one of {', '.join(names)}."
            f"{near(unknown, names)}"
        )
    left = []
    for one in parameters:
        if one.name not in held and all(held[name] in values for name, values in one.when if name in held):
            left.append(one._replace(when=tuple(each for each in one.when if each[0] not in held)))
    return left


def _build(function: Hypermodel, draw: Callable[[Parameter], Any], names: Names) -> Built:
    hp, failure = drawn_hyperparameters(draw, names), None
    try:
        function.build(hp)
    except CombinationError as error:
        failure = str(error)
    return Built({key: hp.values[key] for key in hp.drawn}, hp.met, failure)


def _discover(function: Hypermodel) -> tuple[tuple[Parameter, ...], Names, list[Built]]:
    """Every parameter with its conditions (its declared scope, or the values of another parameter with which it appeared), and
    all combinations tried."""
    found: dict[str, Parameter] = {}
    names: Names = {}
    tried: list[Built] = []
    # Values to fix parameters at so that others appear; the first build has every parameter at its first value.
    waiting: list[dict[str, Any]] = [{}]
    _probe_space(function, {}, found, names, tried)
    probed: set[str] = set()
    while waiting:
        held = waiting.pop(0)
        for parent in [one for one in found.values() if one.name not in probed and _holds(one, held)]:
            probed.add(parent.name)
            appearing: dict[str, list[Any]] = {}
            before = dict(found)
            for value in _probes(parent):
                for one in _probe_space(function, {**held, parent.name: value}, found, names, tried):
                    if one.name not in before:
                        appearing.setdefault(one.name, []).append(value)
            for child, values in appearing.items():
                declared = found[child].when
                if parent.name not in dict(declared) and len(values) < len(_probes(parent)) == parent.size():
                    found[child] = found[child]._replace(when=(*declared, (parent.name, tuple(values))))
                waiting.append({**held, parent.name: values[0]})
            waiting += [
                {**held, **{needed: values[0] for needed, values in one.when}}
                for one in found.values()
                if one.when and one.name not in probed and dict(one.when).get(parent.name)
            ]
    return tuple(found.values()), names, tried


def _holds(parameter: Parameter, held: dict[str, Any]) -> bool:
    return all(held.get(name) in values for name, values in parameter.when)


def _probes(parameter: Parameter) -> list[Any]:
    if not isinstance(parameter.domain, Range) or parameter.size() <= PROBED:
        return list(parameter.values())
    kind = int if parameter.integer else float
    return [kind(parameter.domain.low), kind(parameter.domain.high)]


def _probe_space(
    function: Hypermodel, held: dict[str, Any], found: dict[str, Parameter], names: Names, tried: list[Built]
) -> list[Parameter]:
    """Builds once with these values and every other parameter at its first; returns the parameters met, added to `found`."""
    tried.append(_build(function, lambda one: held.get(one.name, _probes(one)[0]), names))
    for parameter in tried[-1].met:
        found.setdefault(parameter.name, parameter)
    return tried[-1].met
