"""Parameter: one value that a trial draws, as samplers see it: its choices or range, and its conditions.

A search space lists its parameters in the order in which a trial draws them, so that a grid can be enumerated and KerasTuner's
oracles know the space before the first trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import Field, model_validator

from features.runtime.section import Section

if TYPE_CHECKING:
    import optuna

Choice = bool | int | float | str | None


class Range(Section):
    """From `low` to `high`, both included; on a logarithmic scale, or in steps."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _order(self) -> Range:
        if not self.low <= self.high:
            raise ValueError(f"`low <= high` must hold, but got low={self.low:g}, high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"`low > 0` must hold for log: true, but got low={self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("log: true and step are both set; set at most one of them")
        return self

    def draw(self, trial: optuna.Trial, name: str, integer: bool) -> float | int:
        """Draws a number from Optuna."""
        if integer:
            return trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def size(self, integer: bool) -> float:
        """The number of values; infinite for a continuous range."""
        if self.low == self.high:
            return 1
        if self.step is None and not integer:
            return float("inf")
        return int((self.high - self.low) / (self.step or 1) + 1e-9) + 1


class Parameter(NamedTuple):
    """A value to draw: from choices, or from a range of integers or real numbers.

    `when` holds its conditions: pairs of an earlier parameter and the values of it that this one requires. All of them must hold;
    a parameter that does not exist satisfies no condition.
    """

    name: str
    domain: tuple[Choice, ...] | Range
    integer: bool = False
    when: tuple[tuple[str, tuple[Choice, ...]], ...] = ()

    def exists(self, drawn: Mapping[str, Any]) -> bool:
        """Whether a trial that drew these values has this parameter."""
        return all(name in drawn and drawn[name] in wanted for name, wanted in self.when)

    def size(self) -> float:
        """The number of values; infinite for a continuous range."""
        return self.domain.size(self.integer) if isinstance(self.domain, Range) else len(self.domain)

    def values(self) -> Sequence[Choice]:
        """Every value, in order; only for finite sizes."""
        if not isinstance(self.domain, Range):
            return self.domain
        if self.integer:
            return range(int(self.domain.low), int(self.domain.high) + 1, int(self.domain.step or 1))
        return [round(self.domain.low + number * (self.domain.step or 0), 12) for number in range(int(self.size()))]

    def draw(self, trial: optuna.Trial) -> Any:
        """Draws the value from Optuna."""
        if isinstance(self.domain, Range):
            return self.domain.draw(trial, self.name, self.integer)
        return trial.suggest_categorical(self.name, self.domain)

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The Optuna distribution that `draw` draws from."""
        import optuna

        domain = self.domain
        if not isinstance(domain, Range):
            return optuna.distributions.CategoricalDistribution(domain)
        if self.integer:
            return optuna.distributions.IntDistribution(
                int(domain.low), int(domain.high), log=domain.log, step=int(domain.step or 1)
            )
        return optuna.distributions.FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


class Space(Protocol):
    """What samplers know of a search space."""

    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter, in drawing order: parents before the parameters that depend on them."""
        ...

    def size(self) -> float:
        """The number of distinct trials; infinite with a continuous range."""
        ...


class AskContext(NamedTuple):
    """What a sampler is made for: one trial of one study, whose first `first` trials are not drawn."""

    parameters: tuple[Parameter, ...]
    seed: int
    number: int
    epochs: int
    first: int = 0

    @property
    def turn(self) -> int:
        """The trial's index among the drawn trials, from 0."""
        return self.number - self.first
