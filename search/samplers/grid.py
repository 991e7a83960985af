"""The grid: every configuration of a space once, respecting conditions, without listing them in memory.

Trial n takes configuration `(start + n * stride) mod size`. The stride, close to the golden section of the size and coprime to
it, spreads the first trials over the whole grid, so that a study that stops early has not only seen one corner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from search.parameters import AskContext, Choice, Parameter, Range

if TYPE_CHECKING:
    import optuna

GOLDEN = (math.sqrt(5) - 1) / 2


class Grid:
    """The configurations of a finite space by number, from 0 to `size - 1`."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = parameters
        self._counts: dict[tuple[int, tuple[Any, ...]], int] = {}
        # What still matters at each position: the drawn values on which a later parameter depends.
        self._matters = [
            sorted({parent for later in parameters[position:] for parent, _ in later.when})
            for position in range(len(parameters) + 1)
        ]
        self.size = self._count(0, {})

    def configuration(self, number: int) -> dict[str, Choice]:
        """The parameters that exist in this configuration, and their values."""
        drawn: dict[str, Choice] = {}
        for position, parameter in enumerate(self._parameters):
            if not parameter.exists(drawn):
                continue
            for value in parameter.values():
                below = self._count(position + 1, {**drawn, parameter.name: value})
                if number < below:
                    drawn[parameter.name] = value
                    break
                number -= below
        return drawn

    def of_trial(self, seed: int, trial: int) -> dict[str, Choice]:
        """The configuration of a trial; the first `size` trials all differ."""
        start = int(np.random.SeedSequence([seed]).generate_state(1, np.uint64)[0])
        return self.configuration((start + trial * _stride(self.size)) % self.size)

    def _count(self, position: int, drawn: Mapping[str, Choice]) -> int:
        """The number of ways to draw the parameters from `position` on."""
        if position == len(self._parameters):
            return 1
        key = (position, tuple((name, repr(drawn.get(name))) for name in self._matters[position] if name in drawn))
        if key not in self._counts:
            parameter = self._parameters[position]
            if not parameter.exists(drawn):
                self._counts[key] = self._count(position + 1, drawn)
            elif parameter.name in self._matters[position + 1]:
                self._counts[key] = sum(
                    self._count(position + 1, {**drawn, parameter.name: value}) for value in parameter.values()
                )
            else:
                self._counts[key] = int(parameter.size()) * self._count(position + 1, drawn)
        return self._counts[key]


def _stride(size: int) -> int:
    stride = max(1, round(size * GOLDEN))
    while math.gcd(stride, size) != 1:
        stride += 1
    return stride


def continuous(parameters: Sequence[Parameter]) -> str | None:
    """Why a space has no grid: its first continuous range and what to write instead; None if it has one."""
    for parameter in parameters:
        domain = parameter.domain
        if isinstance(domain, Range) and math.isinf(parameter.size()):
            points = np.geomspace(domain.low, domain.high, 4) if domain.log else np.linspace(domain.low, domain.high, 4)
            values = ", ".join(f"{point:.3g}" for point in points)
            step = (
                "" if domain.log else f", or give it a step: {{low: {domain.low:g}, high: {domain.high:g}, step: ...}}"
            )
            return (
                f"space.{parameter.name} is a continuous range ({domain.low:g} to {domain.high:g}), which the sampler grid "
                f"cannot "
                f"exhaust. Write the values to try, e.g. [{values}]{step}; or choose another sampler"
            )
    return None


def grid_sampler(context: AskContext) -> optuna.samplers.BaseSampler:
    """The sampler for one trial of a space that is not `continuous`."""
    sampler: optuna.samplers.BaseSampler = _grid_class()(context, Grid(context.parameters))
    return sampler


@lru_cache(maxsize=1)
def _grid_class() -> Callable[..., Any]:
    import optuna

    class GridSampler(optuna.samplers.BaseSampler):
        """Returns a trial's configuration. (Optuna's GridSampler takes the full product, ignoring conditions, and its position
        depends on running trials.)"""

        def __init__(self, context: AskContext, grid: Grid) -> None:
            self._context, self._grid = context, grid

        def exhausted(self, study: optuna.Study) -> str | None:
            if self._context.turn < self._grid.size:
                return None
            return f"the grid is exhausted: all of its {self._grid.size:,} configurations have been tried"

        def infer_relative_search_space(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial
        ) -> dict[str, optuna.distributions.BaseDistribution]:
            return {parameter.name: parameter.distribution() for parameter in self._context.parameters}

        def sample_relative(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: Any
        ) -> dict[str, Any]:
            return self._grid.of_trial(self._context.seed, self._context.turn)

        def sample_independent(self, study: optuna.Study, trial: Any, param_name: str, param_distribution: Any) -> Any:
            raise AssertionError(f"{param_name} is drawn, but the space does not list it")

    return GridSampler
