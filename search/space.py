"""SearchSpace: declared in the shape of a TrialConfig, where any value may be a choice or a range.

A domain is a value (fixed), a list (choices) or `{low, high, log, step}` (a range). Conditions follow from the structure:
`units` is drawn for each hidden layer, and a parameter of a schedule or an optimiser only if the drawn kind has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from features.cache.views import Views
from features.pooling import parse_pooling
from features.runtime.section import Section
from search.heads import HeadConfig
from search.optimizers import OPTIMIZERS
from search.parameters import Choice, Parameter, Range
from search.schedules import SCHEDULES
from search.trial import FeatureParts, TrialConfig

if TYPE_CHECKING:
    import optuna

MAX_LAYERS = 3

UNITS = ("units", *(f"units_{layer + 1}" for layer in range(MAX_LAYERS)))
"""`units` applies to every hidden layer, `units_1` and so on to one of them."""

Domains = dict[str, Any]


class SearchSpace(Section):
    """The space of trials; a value missing from a section keeps its default.

    The default domains are those that random trials on several data sets agree on (`python -m tests.benchmarks.evidence
    factors`). Rates below 1e-3 do not get far enough in 30 epochs, whatever the rest of the trial; heads without a hidden layer,
    batch normalisation or dropout are never among the best, and the linear probe is tried anyway (`search.first`). Two shapes
    mean two programs to compile.
    """

    head: Domains = Field(
        default_factory=lambda: {
            "layers": [1, 2],
            "units": 256,
            "activation": "relu",
            "dropout": {"low": 0.2, "high": 0.7, "step": 0.1},
            "l2": 0.0,
            "batch_norm": True,
            "label_smoothing": [0.0, 0.1, 0.2],
            "standardize": True,
        },
        description="layers, units, activation, dropout, l2, batch_norm, label_smoothing, standardize",
    )
    optimizer: Domains = Field(
        default_factory=lambda: {"kind": "adamw", "weight_decay": 0.2},
        description="kind: adam | adamw | sgd | rmsprop, and weight_decay, momentum; sgd needs learning rates of 0.03 to 1, its "
        "default",
    )
    batch_size: Any = 64
    schedule: Domains = Field(
        default_factory=lambda known: {
            "kind": ["triangular2", "cosine_restarts", "warmup_cosine", "one_cycle"],
            "learning_rate": _default_rates(known["optimizer"]),
        },
        description=f"kind: {' | '.join(SCHEDULES)}; learning_rate, warmup_epochs, and the settings of these kinds",
    )
    views: Domains | None = Field(
        None,
        description="what each trial draws among policy, copies, clean_share and draw; default: nothing if search.views is set, "
        "else clean_share from 0 to 1, the policy and its copies",
    )
    features: Domains = Field(
        default_factory=dict,
        description="parts: a choice among parts of features.pooling, e.g. [avg+max, avg+max+covariance:64]; default: all",
    )

    @model_validator(mode="after")
    def _check(self) -> SearchSpace:
        self._check_head()
        _check_tagged("optimizer", self.optimizer, OPTIMIZERS, "adam")
        _check_tagged("schedule", self.schedule, SCHEDULES, "constant")
        _check_domain("batch_size", self.batch_size, TrialConfig, "batch_size")
        for name, domain in (self.views or {}).items():
            _check_domain(f"views.{name}", domain, Views, name)
        for name, domain in self.features.items():
            _check_domain(f"features.{name}", domain, FeatureParts, name)
            _check_different(f"features.{name}", domain)
        return self

    def _check_head(self) -> None:
        for name, domain in self.head.items():
            if name == "layers":
                for layers in _probes("head.layers", domain):
                    if isinstance(layers, bool) or layers not in range(MAX_LAYERS + 1):
                        raise ValueError(f"head.layers: received {layers!r}; it must be 0 to {MAX_LAYERS}")
            elif name in UNITS:
                for units in _probes(f"head.{name}", domain):
                    if (
                        isinstance(units, bool)
                        or not isinstance(units, int | float)
                        or units != int(units)
                        or units < 1
                    ):
                        raise ValueError(f"head.{name}: received {units!r}; it must be an integer of at least 1")
            else:
                _check_domain(f"head.{name}", domain, HeadConfig, name)

    def suggest(self, trial: optuna.Trial, views: Views, epochs: int, seed: int) -> TrialConfig:
        """Draws a trial. Optuna's parameter names are the dotted paths: `head.units_2`, `schedule.learning_rate`."""
        draw = partial(_draw, trial)
        layers = int(draw("head.layers", self.head.get("layers", 0), True))
        units = tuple(int(draw(f"head.units_{layer}", self._units(layer), True)) for layer in range(1, layers + 1))
        head = {
            name: draw(f"head.{name}", domain, _is_integer(HeadConfig, name))
            for name, domain in self._plain_head().items()
        }
        return TrialConfig.model_validate(
            {
                "head": {**head, "units": units},
                "optimizer": _draw_tagged(trial, "optimizer", self.optimizer, OPTIMIZERS, "adam"),
                "batch_size": draw("batch_size", self.batch_size, True),
                "schedule": _draw_tagged(trial, "schedule", self.schedule, SCHEDULES, "constant"),
                "views": {**views.model_dump(), **self._draw_views(trial)},
                "features": {name: draw(f"features.{name}", domain, False) for name, domain in self.features.items()},
                "epochs": epochs,
                "seed": seed,
            }
        )

    def parameters(self) -> tuple[Parameter, ...]:
        """Every parameter that `suggest` may draw, in drawing order."""
        layers = self.head.get("layers", 0)
        found = [*_parameter("head.layers", layers, True)]
        for layer in range(1, MAX_LAYERS + 1):
            deep = [count for count in _values(layers) if count >= layer]
            found += _parameter(f"head.units_{layer}", self._units(layer), True, ("head.layers", layers, deep))
        for name, domain in self._plain_head().items():
            found += _parameter(f"head.{name}", domain, _is_integer(HeadConfig, name))
        found += _tagged_parameters("optimizer", self.optimizer, OPTIMIZERS, "adam")
        found += _parameter("batch_size", self.batch_size, True)
        found += _tagged_parameters("schedule", self.schedule, SCHEDULES, "constant")
        for name, domain in (self.views or {}).items():
            found += _parameter(f"views.{name}", domain, _is_integer(Views, name), self._augmented(name))
        for name, domain in self.features.items():
            found += _parameter(f"features.{name}", domain, False)
        return tuple(found)

    def size(self) -> float:
        """The number of distinct trials; infinite with a continuous range."""
        total = math.prod(
            _domain_size(domain, _is_integer(HeadConfig, name)) for name, domain in self._plain_head().items()
        )
        total *= sum(
            math.prod(_domain_size(self._units(layer), True) for layer in range(1, int(layers) + 1))
            for layers in _values(self.head.get("layers", 0))
        )
        total *= _domain_size(self.batch_size, True)
        total *= self._views_size()
        total *= math.prod(_domain_size(domain, False) for domain in self.features.values())
        for domains, table, default in ((self.optimizer, OPTIMIZERS, "adam"), (self.schedule, SCHEDULES, "constant")):
            total *= sum(
                math.prod(
                    _domain_size(domain, _is_integer(table[kind], name))
                    for name, domain in _of_kind(domains, table[kind]).items()
                )
                for kind in _kinds(domains, default)
            )
        return total

    def _draw_views(self, trial: optuna.Trial) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        for name, domain in (self.views or {}).items():
            needs = self._augmented(name)
            if needs and drawn["clean_share"] not in needs[2]:  # clean photos only: views without copies
                return {**drawn, "copies": 0, "clean_share": 0.0}
            drawn[name] = _draw(trial, f"views.{name}", domain, _is_integer(Views, name))
        return drawn

    def _augmented(self, name: str) -> tuple[str, Any, list[Any]] | None:
        """The condition of a views domain, as `_parameter` takes it: those after `clean_share` do not apply when that is 1."""
        domains = self.views or {}
        shares, names = domains.get("clean_share"), list(domains)
        if not isinstance(shares, list) or 1 not in shares or names.index(name) <= names.index("clean_share"):
            return None
        return "views.clean_share", shares, [share for share in shares if share != 1]

    def _views_size(self) -> float:
        before = after = 1.0
        shares: Any = None
        for name, domain in (self.views or {}).items():
            size, needs = _domain_size(domain, _is_integer(Views, name)), self._augmented(name)
            shares = needs[2] if needs else shares
            before, after = (before, after * size) if needs else (before * size, after)
        if shares is None:
            return before
        drawn = len((self.views or {})["clean_share"])
        return before / drawn * (len(shares) * after + drawn - len(shares))

    def _units(self, layer: int) -> Any:
        return self.head.get(f"units_{layer}", self.head.get("units", 256))

    def _plain_head(self) -> Domains:
        return {name: domain for name, domain in self.head.items() if name != "layers" and name not in UNITS}


ADAMS_RATES, SGDS_RATES = (1e-3, 3e-2), (3e-2, 1.0)
"""Where the best of random trials have their learning rates, with stochastic gradient descent and with other optimisers."""


def _default_rates(optimizer: Domains) -> dict[str, Any]:
    """The learning rates for all kinds of optimisers that may be drawn."""
    ranges = [SGDS_RATES if kind == "sgd" else ADAMS_RATES for kind in _kinds(optimizer, "adam")]
    return {"low": min(low for low, _ in ranges), "high": max(high for _, high in ranges), "log": True}


def fixed_space(config: TrialConfig) -> SearchSpace:
    """The space that contains only this trial, which must not be a linear probe."""
    plain = config.model_dump(mode="json")
    head = plain["head"]
    units = head.pop("units")
    return SearchSpace(
        head={"layers": len(units), **{f"units_{layer}": count for layer, count in enumerate(units, start=1)}, **head},
        optimizer=plain["optimizer"],
        batch_size=plain["batch_size"],
        schedule=plain["schedule"],
        views={},
        features={} if config.features.parts is None else {"parts": config.features.parts},
    )


def _kinds(domains: Domains, default: str) -> list[str]:
    return [str(kind) for kind in _values(domains.get("kind", default))]


def _of_kind(domains: Domains, model: type[BaseModel]) -> Domains:
    return {name: domain for name, domain in domains.items() if name != "kind" and name in model.model_fields}


def _parameter(
    name: str, domain: Any, integer: bool, needs: tuple[str, Any, list[Any]] | None = None
) -> list[Parameter]:
    """The parameter of a domain, if it is not a fixed value; `needs` is its parent (name, domain) and the parent's values for
    which it exists."""
    when: tuple[tuple[str, tuple[Choice, ...]], ...] = ()
    if needs:
        parent, parent_leaf, wanted = needs
        if not wanted:
            return []
        if len(wanted) < len(_values(parent_leaf)):
            when = ((parent, tuple(wanted)),)
    if isinstance(domain, list):
        return [Parameter(name, tuple(domain), integer, when)]
    return [Parameter(name, Range.model_validate(domain), integer, when)] if isinstance(domain, dict) else []


def _tagged_parameters(
    section: str, domains: Domains, table: Mapping[str, type[BaseModel]], default: str
) -> list[Parameter]:
    kind = domains.get("kind", default)
    found = _parameter(f"{section}.kind", kind, False)
    # In the order in which `_draw_tagged` draws them: all kinds share the order of the file.
    for name, domain in domains.items():
        if name != "kind":
            having = [one for one in _kinds(domains, default) if name in table[one].model_fields]
            integer = bool(having) and _is_integer(table[having[0]], name)
            found += _parameter(f"{section}.{name}", domain, integer, (f"{section}.kind", kind, having))
    return found


def _draw_tagged(
    trial: optuna.Trial, section: str, domains: Domains, table: Mapping[str, type[BaseModel]], default: str
) -> dict[str, Any]:
    kind = _draw(trial, f"{section}.kind", domains.get("kind", default), False)
    drawn = {
        name: _draw(trial, f"{section}.{name}", domain, _is_integer(table[kind], name))
        for name, domain in _of_kind(domains, table[kind]).items()
    }
    return {"kind": kind, **drawn}


def _draw(trial: optuna.Trial, name: str, domain: Any, integer: bool) -> Any:
    if isinstance(domain, list):
        return trial.suggest_categorical(name, domain)
    if isinstance(domain, dict):
        return Range.model_validate(domain).draw(trial, name, integer)
    return domain


def _check_tagged(section: str, domains: Domains, table: Mapping[str, type[BaseModel]], default: str) -> None:
    for kind in _probes(f"{section}.kind", domains.get("kind", default)):
        if kind not in table:
            raise ValueError(f"{section}.kind: received {kind!r}; allowed: {', '.join(table)}")
    kinds = _kinds(domains, default)
    for name, domain in domains.items():
        having = [table[kind] for kind in kinds if name in table[kind].model_fields]
        if not having:
            known = sorted({field for kind in kinds for field in table[kind].model_fields})
            raise ValueError(f"{section}.{name}: unknown for the kinds {', '.join(kinds)}; allowed: {', '.join(known)}")
        for model in having if name != "kind" else []:
            _check_domain(f"{section}.{name}", domain, model, name)


def _check_different(path: str, domain: Any) -> None:
    """ValueError if two choices contain the same parts in a different order."""
    choices = [choice for choice in domain if isinstance(choice, str)] if isinstance(domain, list | tuple) else []
    for number, choice in enumerate(choices):
        for earlier in choices[:number]:
            if set(parse_pooling(earlier)) == set(parse_pooling(choice)):
                raise ValueError(f"{path}: {earlier} and {choice} are the same parts. Remove one of them")


def _check_domain(path: str, domain: Any, model: type[BaseModel], name: str) -> None:
    """Checks every choice, or both ends of a range, against the field that takes the value."""
    field = model.model_fields.get(name)
    if field is None:
        raise ValueError(f"{path}: unknown key; allowed: {', '.join(model.model_fields)}")
    annotated: Any = Annotated[field.annotation, field, *field.metadata]
    adapter: TypeAdapter[Any] = TypeAdapter(annotated)
    for value in _probes(path, domain):
        try:
            adapter.validate_python(int(value) if _is_integer(model, name) and value == int(value) else value)
        except (ValidationError, ValueError, TypeError) as error:
            detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            detail = detail.removeprefix("Value error, ")
            raise ValueError(f"{path}: received {value!r}; {detail[:1].lower()}{detail[1:]}") from None


def _probes(path: str, domain: Any) -> list[Any]:
    """The values to check in a domain: the value itself, its choices, or the ends of its range."""
    if isinstance(domain, dict):
        try:
            span = Range.model_validate(domain)
        except ValidationError as error:
            detail = error.errors()[0]
            place = ".".join([path, *map(str, detail["loc"])])
            raise ValueError(f"{place}: {detail['msg'].removeprefix('Value error, ')}") from None
        return [span.low, span.high]
    if isinstance(domain, list):
        if not domain:
            raise ValueError(f"{path}: the list of choices is empty")
        for value in domain:
            if not isinstance(value, Choice):
                raise ValueError(f"{path}: a choice must be a single value, but got {value!r}")
        if len(set(map(repr, domain))) < len(domain):
            raise ValueError(f"{path}: a choice is listed twice in {domain}")
        return domain
    return [domain]


def _is_integer(model: type[BaseModel], name: str) -> bool:
    return model.model_fields[name].annotation in (int, int | None)


def _values(domain: Any) -> list[Any]:
    if isinstance(domain, dict):
        span = Range.model_validate(domain)
        return list(range(int(span.low), int(span.high) + 1, int(span.step or 1)))
    return domain if isinstance(domain, list) else [domain]


def _domain_size(domain: Any, integer: bool) -> float:
    if isinstance(domain, dict):
        return Range.model_validate(domain).size(integer)
    return len(domain) if isinstance(domain, list) else 1
