"""The first trials of a study, which no sampler draws: the answers that must be among those that a search has tried.

They are ordinary trials with the numbers 0, 1, … and count as such. Those of their values that the space has too are recorded as
parameters, so that samplers learn from them. None of them is pruned: a head that starts slowly would be lost at the first rung.
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
"""What tables call them."""

ATTRIBUTE = "first"
"""The user attribute of such a trial: its name in `search.first`."""

LEAST_L2 = 1e-6
"""No penalty to speak of, and a value that a logarithmic range of penalties has."""


def titled(number: int, name: FirstTrial | None) -> str:
    """A trial's number, and what it is called where it is a first trial: `0 (linear probe)`."""
    return f"{number} ({TITLES[name]})" if name else str(number)


def first_config(name: FirstTrial, views: Views, epochs: int) -> TrialConfig:
    """What a first trial is trained with; `views` are the study's, `epochs` what every trial has.

    `probe`: the multinomial logistic regression on clean photos, see `search.probe`. `known_good`: one wide hidden layer with
    batch normalisation on clean photos, with a short warm-up and a cosine, near what long searches find. `notebook`: the
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


def expressed(config: TrialConfig, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The parameters of a space whose value this trial has, in their order.

    Left out is a parameter whose range or choices do not hold the trial's value, one that means nothing in the trial, and one
    that exists only for a value of another that is left out.
    """
    values, found = values_of(config), dict[str, Any]()
    if config.is_probe:  # chosen while it is solved; and nothing that a space draws
        values = {
            name: value for name, value in values.items() if name != "head.l2" and not name.startswith("optimizer.")
        }
    for parameter in parameters:
        name = parameter.name
        if name in values and parameter.exists(found) and holds(parameter.distribution(), values[name]):
            found[parameter.name] = values[parameter.name]
    return found


def first_of(study: optuna.Study) -> tuple[FirstTrial, ...]:
    """The first trials that belong to a study; none where it is older than they are."""
    return tuple(study.user_attrs.get("identity", {}).get("first", ()))


def log_left_out(wanted: Sequence[FirstTrial], study: optuna.Study, is_hypermodel: bool) -> None:
    """One line where the configuration asks for first trials that the study does not have."""
    if not wanted or first_of(study):
        return
    if is_hypermodel:
        reason = "a hypermodel's study has heads of its function only"
    else:
        reason = "the study was started without them, and goes on as it is"
    log.print(f"No first trials ({', '.join(wanted)}): {reason}.")


def name_of(trial: optuna.trial.FrozenTrial) -> FirstTrial | None:
    """The name of a first trial; None for one that was drawn."""
    found: FirstTrial | None = trial.user_attrs.get(ATTRIBUTE)
    return found


def fixed_sampler(values: Mapping[str, Any], parameters: Sequence[Parameter]) -> optuna.samplers.BaseSampler:
    """The sampler of a first trial: it answers with these values and knows no other."""
    wanted = {parameter.name: parameter for parameter in parameters if parameter.name in values}
    sampler: optuna.samplers.BaseSampler = _fixed_class()(values, wanted)
    return sampler


@lru_cache(maxsize=1)
def _fixed_class() -> Any:
    import optuna

    class FixedSampler(optuna.samplers.BaseSampler):
        """Values that are known beforehand, for one ask."""

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
