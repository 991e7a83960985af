"""The first trials of a study, fixed instead of drawn: baselines that every search must try.

They are ordinary trials, numbered 0, 1, …, and count as such. Their values that the space contains are recorded as parameters, so
that samplers learn from them. They are never pruned: a head that starts slowly would be lost at the first rung.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from features.cache.views import Views
from features.runtime.log import log
from search.heads import HeadConfig
from search.optimizers import LBFGS, Adam
from search.optuna_internals import holds
from search.parameters import Parameter
from search.schedules import Constant, WarmupCosine
from search.trial import TrialConfig, values_of

if TYPE_CHECKING:
    import optuna

FirstTrial = Literal["probe", "known_good", "notebook"]

TITLES: dict[FirstTrial, str] = {
    "probe": "linear probe",
    "known_good": "known good head",
    "notebook": "notebooks' head",
}
"""Their names in tables."""

ATTRIBUTE = "first"
"""The user attribute that holds the name of a first trial (as in `search.first`)."""

LEAST_L2 = 1e-6
"""A negligible L2 penalty that is still inside a logarithmic range of penalties."""


def label_of(number: int, name: FirstTrial | None) -> str:
    """A trial's number, with its title if it is a first trial: `0 (linear probe)`."""
    return f"{number} ({TITLES[name]})" if name else str(number)


def first_config(name: FirstTrial, views: Views, epochs: int) -> TrialConfig:
    """The configuration of a first trial; `views` are the study's, `epochs` the number that every trial trains for.

    `probe`: multinomial logistic regression on clean photos, see `features.audit.probe`. `known_good`: one wide hidden layer with
    batch normalisation on clean photos, with a short warm-up and cosine decay, close to what long searches find. `notebook`: the
    classifier of the notebooks that this project started from, on augmented copies in rotation.
    """
    clean = Views(policy=views.policy, copies=0)
    if name == "probe":
        return TrialConfig(head=HeadConfig(), optimizer=LBFGS(), views=clean, epochs=1)
    if name == "known_good":
        return TrialConfig(
            head=HeadConfig(units=(256,), dropout=0.4, l2=LEAST_L2, batch_norm=True),
            schedule=WarmupCosine(learning_rate=3e-3),
            optimizer=Adam(),
            batch_size=64,
            views=clean,
            epochs=epochs,
        )
    return TrialConfig(
        head=HeadConfig(units=(256,), dropout=0.5, l2=LEAST_L2),
        schedule=Constant(learning_rate=5e-4),
        optimizer=Adam(),
        batch_size=32,
        views=Views(policy=views.policy, copies=views.copies),
        epochs=epochs,
    )


def as_parameters(config: TrialConfig, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The trial's values for the parameters of a space, in their order.

    Omits a parameter whose range or choices do not contain the trial's value, one that does not apply to the trial, and one
    that depends on an omitted parameter.
    """
    values, found = values_of(config), dict[str, Any]()
    if config.is_probe:  # L2 is chosen while solving, and no space draws its optimiser
        values = {
            name: value for name, value in values.items() if name != "head.l2" and not name.startswith("optimizer.")
        }
    for parameter in parameters:
        name = parameter.name
        if name in values and parameter.exists(found) and holds(parameter.distribution(), values[name]):
            found[parameter.name] = values[parameter.name]
    return found


def first_of(study: optuna.Study) -> tuple[FirstTrial, ...]:
    """The first trials of a study; empty for a study older than this feature."""
    return tuple(study.user_attrs.get("identity", {}).get("first", ()))


def log_left_out(wanted: Sequence[FirstTrial], study: optuna.Study, is_hypermodel: bool) -> None:
    """Logs one line if the configuration asks for first trials that the study does not have."""
    if not wanted or first_of(study):
        return
    if is_hypermodel:
        reason = "a hypermodel's study only has models of its function"
    else:
        reason = "the study was started without them and continues as it is"
    log.print(f"No first trials ({', '.join(wanted)}): {reason}.")


def name_of(trial: optuna.trial.FrozenTrial) -> FirstTrial | None:
    """The name of a first trial; None for one that was drawn."""
    found: FirstTrial | None = trial.user_attrs.get(ATTRIBUTE)
    return found


def fixed_sampler(values: Mapping[str, Any], parameters: Sequence[Parameter]) -> optuna.samplers.BaseSampler:
    """The sampler for a first trial: returns these values and no others."""
    wanted = {parameter.name: parameter for parameter in parameters if parameter.name in values}
    sampler: optuna.samplers.BaseSampler = _fixed_class()(values, wanted)
    return sampler


@lru_cache(maxsize=1)
def _fixed_class() -> Any:
    import optuna

    class FixedSampler(optuna.samplers.BaseSampler):
        """Returns fixed values, for one ask."""

        def __init__(self, values: Mapping[str, Any], parameters: Mapping[str, Parameter]) -> None:
            self._values, self._parameters = values, parameters

        def infer_relative_search_space(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial
        ) -> dict[str, optuna.distributions.BaseDistribution]:
            return {name: parameter.distribution() for name, parameter in self._parameters.items()}

        def sample_relative(self, study: optuna.Study, trial: Any, search_space: Any) -> dict[str, Any]:
            return dict(self._values)

        def sample_independent(self, study: optuna.Study, trial: Any, param_name: str, param_distribution: Any) -> Any:
            raise AssertionError(f"{param_name} is drawn in a first trial, which does not have it")

    return FixedSampler
