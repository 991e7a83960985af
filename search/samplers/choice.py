"""Samplers: created anew for every ask and seeded by (search seed, trial number), so that an ask is a function of the history.

So a study has the same trials with any number of workers and resumes from its storage alone. A sampler sees only the trials
before the one it draws, and nothing that a killed driver had already stored of that trial.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from features.runtime.errors import UsageError
from search.optuna_internals import forget_drawn, storage_of, study_id, trial_of
from search.parameters import AskContext, Parameter, Range, Space
from search.samplers.grid import continuous, grid_sampler
from search.samplers.history import comparable, earlier, mixed
from search.samplers.oracles import bayesian_oracle, hyperband_oracle, random_oracle

if TYPE_CHECKING:
    import optuna


def make_sampler(
    name: str, space: Space, seed: int, number: int, epochs: int = 1, first: int = 0
) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number`, which trains for at most `epochs`, of a study whose first `first` trials were not drawn.

    Raises UsageError if the sampler cannot search this space, or needs a package that is not installed.
    """
    import optuna

    parameters = space.parameters()
    fault = cannot_search(name, parameters)
    if fault:
        raise UsageError(f"search: {fault}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](AskContext(parameters, seed, number, epochs, first))


def cannot_search(name: str, parameters: Sequence[Parameter]) -> str | None:
    """Why this sampler cannot search a space, and what to do; None if it can."""
    if name == "grid":
        return continuous(parameters)
    if name == "cmaes" and not _ranges(parameters):
        return (
            "the sampler cmaes needs a range that every trial draws, and the space has none. Add one as {low, high}, "
            "e.g. space.schedule.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}, or choose another sampler"
        )
    return None


def exhausted(sampler: optuna.samplers.BaseSampler, study: optuna.Study) -> str | None:
    """Why the sampler has no more trials to suggest, as a clause; None if it has.

    The answer can only change while trials are running.
    """
    reason: Callable[[optuna.Study], str | None] = getattr(sampler, "exhausted", lambda study: None)
    return reason(study)


def redraw(study: optuna.Study, left: optuna.trial.FrozenTrial) -> optuna.Trial:
    """A trial whose driver was killed during its ask, to be drawn again from the beginning.

    Parameters already stored are drawn (and stored) again, to the same values, so that later ones find the random generator in
    the same state as without the kill.
    """
    trial = trial_of(study, left)
    forget_drawn(trial)
    return trial


def _tpe(context: AskContext) -> optuna.samplers.BaseSampler:
    sampler: optuna.samplers.BaseSampler = _comparing_tpe()(context)
    return sampler


def _random(context: AskContext) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.RandomSampler(seed=mixed(context))


def _qmc(context: AskContext) -> optuna.samplers.BaseSampler:
    sampler: optuna.samplers.BaseSampler = _numbered_qmc()(context)
    return sampler


def _gp(context: AskContext) -> optuna.samplers.BaseSampler:
    if importlib.util.find_spec("torch") is None:
        raise UsageError(
            "search.sampler: Optuna's gp needs PyTorch, which is not installed. Run `pip install 'headhunt[gp]'`, or choose "
            "tpe or keras_tuner.bayesian, which do not need it."
        )
    sampler: optuna.samplers.BaseSampler = _declared_gp()(context)
    return sampler


def _cmaes(context: AskContext) -> optuna.samplers.BaseSampler:
    sampler: optuna.samplers.BaseSampler = _declared_cmaes()(context)
    return sampler


def _always(parameters: Sequence[Parameter]) -> list[Parameter]:
    """The parameters that every trial draws, without those with a single value."""
    return [parameter for parameter in parameters if not parameter.when and parameter.size() > 1]


def _ranges(parameters: Sequence[Parameter]) -> list[Parameter]:
    return [parameter for parameter in _always(parameters) if isinstance(parameter.domain, Range)]


@lru_cache(maxsize=1)
def _comparing_tpe() -> Any:
    import optuna

    class ComparingTPE(optuna.samplers.TPESampler):
        """TPE that ignores first trials that lack a parameter, see `search.samplers.history`."""

        def __init__(self, context: AskContext) -> None:
            # Grouped: a conditional parameter is modelled jointly with those it appears with.
            super().__init__(seed=mixed(context), multivariate=True, group=True, constant_liar=True)
            self._context = context

        def infer_relative_search_space(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial
        ) -> dict[str, optuna.distributions.BaseDistribution]:
            return super().infer_relative_search_space(comparable(study, self._context).study, trial)

        def sample_relative(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: Any
        ) -> dict[str, Any]:
            return super().sample_relative(comparable(study, self._context).study, trial, search_space)

        def sample_independent(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial, param_name: str, param_distribution: Any
        ) -> Any:
            seen = comparable(study, self._context).study
            return super().sample_independent(seen, trial, param_name, param_distribution)

    return ComparingTPE


@lru_cache(maxsize=1)
def _numbered_qmc() -> Any:
    import optuna

    class NumberedQMC(optuna.samplers.QMCSampler):
        """A Sobol sequence over the parameters of the first drawn trial; the nth trial after it takes point n - 1. Other
        parameters are drawn at random.

        Optuna's QMCSampler takes its position from a counter in the storage, which advances even if the ask is killed, and its
        parameters from the trials that happen to be running.
        """

        def __init__(self, context: AskContext) -> None:
            others = optuna.samplers.RandomSampler(seed=mixed(context))
            super().__init__(
                seed=context.seed, scramble=True, independent_sampler=others, warn_independent_sampling=False
            )
            self._context = context

        def infer_relative_search_space(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial
        ) -> dict[str, optuna.distributions.BaseDistribution]:
            if self._context.turn == 0:
                return {}
            drawn = storage_of(study).get_all_trials(study_id(study), deepcopy=False)[self._context.first]
            return dict(drawn.distributions)

        def _find_sample_id(self, study: optuna.Study, search_space: Any) -> int:
            return self._context.turn - 1

    return NumberedQMC


@lru_cache(maxsize=1)
def _declared_gp() -> Any:
    import optuna

    class DeclaredGP(optuna.samplers.GPSampler):
        """A Gaussian process over the parameters that every trial draws; conditional ones are drawn at random.

        Optuna's GPSampler takes its parameters from the finished trials, and after a kill would count the stored part of this
        very trial among the running ones.
        """

        def __init__(self, context: AskContext) -> None:
            others = optuna.samplers.RandomSampler(seed=mixed(context))
            super().__init__(seed=mixed(context), independent_sampler=others, warn_independent_sampling=False)
            self._context = context

        def infer_relative_search_space(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial
        ) -> dict[str, optuna.distributions.BaseDistribution]:
            return {parameter.name: parameter.distribution() for parameter in _always(self._context.parameters)}

        def sample_relative(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: Any
        ) -> dict[str, Any]:
            return super().sample_relative(earlier(study, self._context).study, trial, search_space)

    return DeclaredGP


@lru_cache(maxsize=1)
def _declared_cmaes() -> Any:
    import optuna

    class DeclaredCmaEs(optuna.samplers.CmaEsSampler):
        """CMA-ES over the ranges that every trial draws; choices and conditional parameters are drawn at random.

        Its state is stored in the attributes of the trials that updated it. Optuna's CmaEsSampler takes its parameters from the
        finished trials: after one trial without some of them it would draw at random for the rest of the study. A pruned trial
        counts with its last value; otherwise there would be too few trials for an update.
        """

        def __init__(self, context: AskContext) -> None:
            others = optuna.samplers.RandomSampler(seed=mixed(context))
            super().__init__(
                seed=mixed(context),
                independent_sampler=others,
                warn_independent_sampling=False,
                consider_pruned_trials=True,
            )
            self._context = context

        def infer_relative_search_space(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial
        ) -> dict[str, optuna.distributions.BaseDistribution]:
            return {parameter.name: parameter.distribution() for parameter in _ranges(self._context.parameters)}

    return DeclaredCmaEs


SAMPLERS: dict[str, Callable[[AskContext], optuna.samplers.BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "random": _random,
    "cmaes": _cmaes,
    "qmc": _qmc,
    "grid": grid_sampler,
    "keras_tuner.random": random_oracle,
    "keras_tuner.bayesian": bayesian_oracle,
    "keras_tuner.hyperband": hyperband_oracle,
}
"""Every sampler by name, as in `search.sampler`."""
