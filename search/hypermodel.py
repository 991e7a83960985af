"""A KerasTuner `build(hp) -> compiled model` function as a search space, searched by any sampler.

`search.hypermodel: module:function` names it. The function is run for every choice of every hyperparameter, to learn what there
is to draw and when; in a trial its `hp` calls draw from Optuna, so that a trial records what its model was built from and nothing
else. A hyperparameter that only appears for two values of two others at once is drawn at random by every sampler.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import random
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from features.engine import start_keras
from features.errors import HeadhuntError, UsageError
from features.keras_layers import suggest as near
from features.views import Views
from search.parameters import Parameter, Range
from search.trial import HypermodelChoice, TrialConfig

if TYPE_CHECKING:
    import optuna

PROBED = 8
"""Ranges with more values than these are probed at their ends alone, and no condition is read off them."""

Conditions = tuple[tuple[str, tuple[Any, ...]], ...]


class HypermodelSpace:
    """The space of a function; `folder` is where its module may lie, besides the installed packages."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._function = load_function(name, folder)
        self._parameters, self._names = _discover(name, self._function)

    @property
    def digest(self) -> str:
        """sha256 (hex) of the function's own source and its parameters: a study does not go on with another function."""
        try:
            source = inspect.getsource(self._function)
        except (OSError, TypeError):
            source = ""
        return hashlib.sha256(repr((source, self._parameters)).encode()).hexdigest()

    def parameters(self) -> tuple[Parameter, ...]:
        """What the function may draw, in the order in which it was met, parents first."""
        return self._parameters

    def size(self) -> float:
        """The number of different trials; infinite with a continuous range in it."""
        from search.samplers.grid import Grid

        infinite = any(math.isinf(parameter.size()) for parameter in self._parameters)
        return float("inf") if infinite else Grid(self._parameters).size

    def suggest(self, trial: optuna.Trial, views: Views, epochs: int, seed: int) -> TrialConfig:
        """Draws a trial by building its model, which is then dropped. `batch_size`, if it is drawn, is the trial's."""
        values, _ = _build(self._name, self._function, lambda one: one.draw(trial), dict(self._names))
        choice = HypermodelChoice(function=self._name, values=values)
        batch_size = values.get("batch_size", TrialConfig.model_fields["batch_size"].default)
        return TrialConfig(hypermodel=choice, batch_size=batch_size, views=views, epochs=epochs, seed=seed)


def load_function(name: str, folder: Path) -> Callable[[Any], Any]:
    """The function of `module:function`: from an installed package, or from a file in `folder`, which comes last on the path.

    Raises UsageError where there is none.
    """
    module_name, _, function_name = name.partition(":")
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", name):
        raise UsageError(
            f"search.hypermodel: received {name!r}; module:function is needed, e.g. `models:build` for the function build in "
            "models.py."
        )
    if "keras" not in sys.modules:
        start_keras("jax")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: a search.py or train.py there must not shadow our packages
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            there = sorted(path.stem for path in folder.glob("*.py"))
            raise UsageError(
                f"search.hypermodel: there is no module {module_name!r} in {folder} or among the installed packages."
                f"{near(module_name, there)}"
            ) from None
        raise UsageError(
            f"search.hypermodel: {module_name} imports {error.name}, which is not installed. Install it."
        ) from error
    except Exception as error:
        raise UsageError(
            f"search.hypermodel: importing {module_name} failed: {type(error).__name__}: {error}."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise UsageError(
            f"search.hypermodel: {module_name} ({getattr(module, '__file__', 'built in')}) has no function {function_name!r}."
            f"{near(function_name, known)}"
        )
    return function  # type: ignore[no-any-return]


def build_model(name: str, folder: Path, values: dict[str, Any], seed: int) -> Any:
    """The compiled model of these values, its weights drawn from `seed`; UsageError when the function does not return one."""
    import keras

    keras.backend.clear_session()
    # As keras.utils.set_random_seed, which would import TensorFlow: Keras draws its default seeds from Python's.
    random.seed(seed)
    np.random.seed(seed % 2**32)
    function = load_function(name, folder)
    hp = _hyperparameters_class()(lambda parameter: values[parameter.name], {})
    hp.values = dict(values)
    model = _call(name, function, hp)
    if not isinstance(model, keras.Model) or not model.compiled:
        raise UsageError(
            f"search.hypermodel: {name} must return a compiled keras.Model, but returned {type(model).__name__}."
        )
    return model


def _build(
    name: str, function: Any, draw: Callable[[Parameter], Any], names: dict[tuple[str, Conditions], str]
) -> tuple[dict[str, Any], list[Parameter]]:
    """Runs the function: the values that it drew, and the parameters that it drew or met in a closed scope."""
    hp = _hyperparameters_class()(draw, names)
    _call(name, function, hp)
    return {key: hp.values[key] for key in hp.drawn}, hp.met


def _call(name: str, function: Any, hp: Any) -> Any:
    try:
        return function(hp)
    except HeadhuntError:
        raise
    except Exception as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in hp.values.items())
        raise UsageError(f"search.hypermodel: {name} failed with {shown}: {type(error).__name__}: {error}") from error


def _discover(name: str, function: Any) -> tuple[tuple[Parameter, ...], dict[tuple[str, Conditions], str]]:
    """Every parameter, and when it exists: by its declared scope, or as the values of another one that it appeared with."""
    found: dict[str, Parameter] = {}
    names: dict[tuple[str, Conditions], str] = {}
    # What to hold a parameter at to make another one appear; the first build has every parameter at its first value.
    waiting: list[dict[str, Any]] = [{}]
    _meet(name, function, {}, found, names)
    probed: set[str] = set()
    while waiting:
        held = waiting.pop(0)
        for parent in [one for one in found.values() if one.name not in probed and _holds(one, held)]:
            probed.add(parent.name)
            appearing: dict[str, list[Any]] = {}
            before = dict(found)
            for value in _probes(parent):
                for one in _meet(name, function, {**held, parent.name: value}, found, names):
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
    return tuple(found.values()), names


def _holds(parameter: Parameter, held: dict[str, Any]) -> bool:
    return all(held.get(name) in values for name, values in parameter.when)


def _probes(parameter: Parameter) -> list[Any]:
    if not isinstance(parameter.leaf, Range) or parameter.size() <= PROBED:
        return list(parameter.values())
    kind = int if parameter.whole else float
    return [kind(parameter.leaf.low), kind(parameter.leaf.high)]


def _meet(
    name: str,
    function: Any,
    held: dict[str, Any],
    found: dict[str, Parameter],
    names: dict[tuple[str, Conditions], str],
) -> list[Parameter]:
    """One build with these values, every other parameter at its first; what it met, added to `found`."""
    _, met = _build(name, function, lambda one: held.get(one.name, _probes(one)[0]), names)
    for parameter in met:
        found.setdefault(parameter.name, parameter)
    return met


def _parameter(hp: Any, names: dict[tuple[str, Conditions], str]) -> Parameter | None:
    """A hyperparameter of KerasTuner in our terms; None when it is fixed."""
    kind = type(hp).__name__
    if kind == "Fixed":
        return None
    when: Conditions = tuple((condition.name, tuple(condition.values)) for condition in hp.conditions)
    key = (hp.name, when)
    if key not in names:
        # KerasTuner allows one name in several scopes; Optuna has one distribution for a name.
        shown = ", ".join(f"{parent}={'|'.join(map(str, values))}" for parent, values in when)
        names[key] = f"{hp.name} [{shown}]" if hp.name in {known for known, _ in names} and when else hp.name
    if kind == "Boolean":
        return Parameter(names[key], (False, True), when=when)
    if kind == "Choice":
        return Parameter(names[key], tuple(hp.values), when=when)
    if hp.sampling == "reverse_log":
        raise UsageError(
            f"search.hypermodel: {hp.name} has sampling='reverse_log', which only KerasTuner knows. Use 'log' or 'linear'."
        )
    whole = kind == "Int"
    if hp.sampling == "log" and hp.step is not None:
        points = [hp.min_value * hp.step**power for power in range(hp._get_n_values())]
        return Parameter(names[key], tuple(int(point) if whole else float(point) for point in points), when=when)
    log = hp.sampling == "log"
    return Parameter(
        names[key], Range(low=hp.min_value, high=hp.max_value, log=log, step=None if log else hp.step), whole, when
    )


@lru_cache(maxsize=1)
def _hyperparameters_class() -> Any:
    tuner = importlib.import_module("keras_tuner")
    base: Any = tuner.HyperParameters

    class Drawn(base):  # type: ignore[misc]
        """HyperParameters whose values are drawn when they are first asked for."""

        def __init__(self, draw: Callable[[Parameter], Any], names: dict[tuple[str, Conditions], str]) -> None:
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
