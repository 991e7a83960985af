"""KerasTuner HyperParameters whose values Headhunt draws, and their conversion to Parameter."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from features.runtime.errors import UsageError
from search.parameters import Parameter, Range

Conditions = tuple[tuple[str, tuple[Any, ...]], ...]
"""The names and values that a parameter depends on."""

Names = dict[tuple[str, Conditions], str]
"""Parameter names of KerasTuner hyperparameters, by their name and scope."""


def drawn_hyperparameters(draw: Callable[[Parameter], Any], names: Names) -> Any:
    """HyperParameters whose values come from `draw` on first use. `met` lists the parameters so far, including those in inactive
    scopes; `drawn` the names of those with a value."""
    return _hyperparameters_class()(draw, names)


def _parameter(hp: Any, names: Names) -> Parameter | None:
    """A KerasTuner hyperparameter as a Parameter; None if it is fixed."""
    kind = type(hp).__name__
    if kind == "Fixed":
        return None
    when: Conditions = tuple((condition.name, tuple(condition.values)) for condition in hp.conditions)
    key = (hp.name, when)
    if key not in names:
        # KerasTuner allows the same name in several scopes; Optuna allows one distribution per name.
        shown = ", ".join(f"{parent}={'|'.join(map(str, values))}" for parent, values in when)
        names[key] = f"{hp.name} [{shown}]" if hp.name in {known for known, _ in names} and when else hp.name
    if kind == "Boolean":
        return Parameter(names[key], (False, True), when=when)
    if kind == "Choice":
        return Parameter(names[key], tuple(hp.values), when=when)
    if hp.sampling == "reverse_log":
        raise UsageError(
            f"search.hypermodel: {hp.name} has sampling='reverse_log', which only KerasTuner supports. Use 'log' or 'linear'."
        )
    integer = kind == "Int"
    if hp.sampling == "log" and hp.step is not None:
        points = [hp.min_value * hp.step**power for power in range(hp._get_n_values())]
        return Parameter(names[key], tuple(int(point) if integer else float(point) for point in points), when=when)
    log = hp.sampling == "log"
    return Parameter(
        names[key], Range(low=hp.min_value, high=hp.max_value, log=log, step=None if log else hp.step), integer, when
    )


@lru_cache(maxsize=1)
def _hyperparameters_class() -> Any:
    tuner = importlib.import_module("keras_tuner")
    base: Any = tuner.HyperParameters

    class Drawn(base):  # type: ignore[misc]
        """HyperParameters whose values are drawn on first use."""

        def __init__(self, draw: Callable[[Parameter], Any], names: Names) -> None:
            super().__init__()
            self._draw, self._names = draw, names
            self.met: list[Parameter] = []
            self.drawn: list[str] = []

        def _retrieve(self, hp: Any) -> Any:
            if not self._exists(hp.name, hp.conditions):
                parameter = _parameter(hp, self._names)
                if parameter is not None:
                    self.met.append(parameter)
                    if self.is_active(hp) and hp.name not in self.values:
                        self.values[hp.name] = self._draw(parameter)
                        self.drawn.append(hp.name)
            return super()._retrieve(hp)

    return Drawn
