"""KerasTuner's oracles as Optuna samplers: their trials are ordinary Optuna trials, and they write no files of their own.

For every ask, a new oracle is created, given the study's history, asked what to try, and discarded. Its random numbers come from
(search seed, trial number) instead of one long sequence, so that an ask does not have to replay the earlier ones.

`keras_tuner.hyperband` decides how long each trial trains: its brackets, for `search.epochs` and a factor of 3, repeat until the
study has its `search.trials` (a bracket open at that point stays unfinished; `hyperband_trials` gives the number of trials in one
round of all brackets). A trial promoted by a bracket is a new trial: the same head and seed, trained from the first epoch to its
new budget. KerasTuner would load the promoted trial's weights and train the difference. Training is deterministic, so the weights
at that epoch are the same, as long as the schedule does not depend on the trial's length; if it does, like a cosine, the promoted
trial gets the schedule of its own length. This costs at most half as many epochs again.
"""

from __future__ import annotations

import copy
import importlib
import math
import sys
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from features.runtime.workers.engine import start_keras
from search.optuna_internals import StudyView, storage_of, trial_id
from search.parameters import AskContext, Parameter, Range
from search.samplers.history import earlier, mixed

if TYPE_CHECKING:
    import optuna

ATTRIBUTE = "keras_tuner"
"""The user attribute of a Hyperband trial; see Allotment."""

FACTOR = 3
"""Hyperband keeps one trial in three, like Optuna's pruners."""

OBJECTIVE = "value"


class Allotment(NamedTuple):
    """What Hyperband allots to a trial: `epochs`, in round `round` of its `bracket` (both from 0, brackets in order of start).

    `continues` is the trial that it promotes, None in round 0; `origin` the first trial in the chain of promotions.
    """

    epochs: int
    bracket: int
    round: int
    continues: int | None
    origin: int


def allotment(trial: optuna.trial.FrozenTrial) -> Allotment | None:
    """What Hyperband allotted to this trial; None for other samplers."""
    found = trial.user_attrs.get(ATTRIBUTE)
    return Allotment(**found) if found else None


def hyperband_trials(epochs: int) -> int:
    """The number of trials in one round of all brackets of KerasTuner's Hyperband, with at most `epochs` per trial."""
    last, total = math.ceil(1 + math.log(epochs, FACTOR)), 0
    brackets = next(n for n in range(1, 64) if epochs / FACTOR**n < 1)
    for bracket in range(brackets):
        total += sum(math.ceil(last / (bracket + 1) * FACTOR ** (bracket - step)) for step in range(bracket + 1))
    return total


def random_oracle(context: AskContext) -> optuna.samplers.BaseSampler:
    """KerasTuner's RandomSearch: never repeats a configuration."""
    return _sampler(context, lambda tuner, **common: tuner.oracles.RandomSearchOracle(max_trials=None, **common))


def bayesian_oracle(context: AskContext) -> optuna.samplers.BaseSampler:
    """KerasTuner's BayesianOptimization: a scikit-learn Gaussian process after three random trials per parameter."""
    return _sampler(context, lambda tuner, **common: _bayesian_class()(max_trials=None, **common))


def hyperband_oracle(context: AskContext) -> optuna.samplers.BaseSampler:
    """KerasTuner's Hyperband, with repeated brackets."""
    return _sampler(
        context,
        lambda tuner, **common: _hyperband_class()(
            max_epochs=context.epochs, factor=FACTOR, hyperband_iterations=None, **common
        ),
    )


def _sampler(context: AskContext, make: Callable[..., Any]) -> optuna.samplers.BaseSampler:
    sampler: optuna.samplers.BaseSampler = _sampler_class()(context, make)
    return sampler


@lru_cache(maxsize=1)
def _sampler_class() -> Any:
    import optuna

    class OracleSampler(optuna.samplers.BaseSampler):
        """An oracle for one trial. A parameter that the space does not list is drawn at random."""

        def __init__(self, context: AskContext, make: Callable[..., Any]) -> None:
            self._context, self._make = context, make
            self._others = optuna.samplers.RandomSampler(seed=mixed(context))
            self._answer: tuple[str, dict[str, Any], Allotment | None] | None = None

        def exhausted(self, study: optuna.Study) -> str | None:
            status = self._ask(study)[0]
            if status == "RUNNING":
                return None
            return "KerasTuner's oracle found no untried configuration in 20 attempts"

        def infer_relative_search_space(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial
        ) -> dict[str, optuna.distributions.BaseDistribution]:
            return {parameter.name: parameter.distribution() for parameter in self._context.parameters}

        def sample_relative(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial, search_space: Any
        ) -> dict[str, Any]:
            _, values, given = self._ask(study)
            if given:
                storage_of(study).set_trial_user_attr(trial_id(trial), ATTRIBUTE, given._asdict())
            return values

        def sample_independent(self, study: optuna.Study, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return self._others.sample_independent(study, trial, param_name, param_distribution)

        def _ask(self, study: optuna.Study) -> tuple[str, dict[str, Any], Allotment | None]:
            from threadpoolctl import threadpool_limits

            if self._answer is None:
                # One thread: the matrices are small, and sums must not depend on the number of cores.
                with warnings.catch_warnings(), threadpool_limits(1):
                    warnings.simplefilter("ignore")  # from scikit-learn's fits
                    self._answer = _ask(study, self._context, self._make)
            return self._answer

    return OracleSampler


def _ask(
    study: optuna.Study, context: AskContext, make: Callable[..., Any]
) -> tuple[str, dict[str, Any], Allotment | None]:
    """KerasTuner's status, the values by parameter name, and Hyperband's allotment."""
    tuner = _keras_tuner()
    direction = "min" if study.direction.name == "MINIMIZE" else "max"
    oracle = make(
        tuner,
        objective=tuner.Objective(OBJECTIVE, direction),
        hyperparameters=_hyperparameters(tuner, context.parameters),
        seed=mixed(context) % 2**31 or 1,
    )
    by_name = {parameter.name: parameter for parameter in context.parameters}
    trials = StudyView(study, lambda trial: True).trials()  # by number, to look up the trial that Hyperband promotes
    for trial in earlier(study, context).trials():
        _tell(oracle, trial, by_name, sign=1 if direction == "max" else -1)
    answer = oracle.populate_space(str(context.number))
    if answer["status"] != "RUNNING":
        return answer["status"], {}, None
    values = {name: _decode(by_name[name], value) for name, value in answer["values"].items() if name in by_name}
    given = oracle.allotment(str(context.number), trials) if isinstance(oracle, _hyperband_class()) else None
    return "RUNNING", values, given


def _tell(oracle: Any, trial: optuna.trial.FrozenTrial, by_name: dict[str, Parameter], sign: int) -> None:
    """Adds a trial of the study to the oracle, as if it had asked for it. A pruned trial counts with its best value."""
    from keras_tuner.src.engine.trial import Trial

    hyperparameters = copy.copy(oracle.hyperparameters)
    hyperparameters.values = {
        name: _encode(by_name[name], value) for name, value in trial.params.items() if name in by_name
    }
    state = trial.state.name
    reported = [sign * value for value in trial.intermediate_values.values() if not math.isnan(value)]
    value = trial.value if state == "COMPLETE" else sign * max(reported) if state == "PRUNED" and reported else None
    running = state in ("RUNNING", "WAITING")
    status = "RUNNING" if running else "FAILED" if value is None else "COMPLETED"
    told = Trial(hyperparameters=hyperparameters, trial_id=str(trial.number), status=status)
    told.score = value
    oracle.trials[told.trial_id] = told
    oracle._tried_so_far.add(oracle._compute_values_hash(hyperparameters.values))
    if running:
        oracle.ongoing_trials[told.trial_id] = told
    given = allotment(trial)
    if given:
        oracle.place(told.trial_id, given)


def _keras_tuner() -> Any:
    """The keras_tuner module, which imports Keras: on JAX, like the trials, unless Keras is already imported."""
    if "keras" not in sys.modules:
        start_keras("jax")
    return importlib.import_module("keras_tuner")


def _hyperparameters(tuner: Any, parameters: tuple[Parameter, ...]) -> Any:
    """The space as KerasTuner HyperParameters. Choices and stepped ranges are represented by their indices, see `_encode`."""
    found = tuner.HyperParameters()
    by_name = {parameter.name: parameter for parameter in parameters}
    for parameter in parameters:
        conditions = [
            tuner.src.engine.conditions.Parent(name, [_encode(by_name[name], value) for value in wanted])
            for name, wanted in parameter.when
        ]
        found.merge([_hyperparameter(tuner, parameter, conditions)])
    return found


def _hyperparameter(tuner: Any, parameter: Parameter, conditions: list[Any]) -> Any:
    types = tuner.src.engine.hyperparameters.hp_types
    domain, name = parameter.domain, parameter.name
    if not isinstance(domain, Range):
        return types.Choice(name, list(range(len(domain))), conditions=conditions)
    if domain.log and domain.low < domain.high:
        kind = types.Int if parameter.integer else types.Float
        low, high = (int(domain.low), int(domain.high)) if parameter.integer else (domain.low, domain.high)
        return kind(name, low, high, sampling="log", conditions=conditions)
    if math.isinf(parameter.size()):
        return types.Float(name, domain.low, domain.high, conditions=conditions)
    return types.Int(name, 0, int(parameter.size()) - 1, conditions=conditions)


def _by_place(parameter: Parameter) -> bool:
    domain = parameter.domain
    return not isinstance(domain, Range) or (
        not math.isinf(parameter.size()) and not (domain.log and domain.low < domain.high)
    )


def _encode(parameter: Parameter, value: Any) -> Any:
    """A value in the oracle's terms: its index among the parameter's values, or itself for ranges without an index."""
    if not _by_place(parameter):
        return value
    if not isinstance(parameter.domain, Range):
        return parameter.domain.index(value)
    return round((value - parameter.domain.low) / (parameter.domain.step or 1))


def _decode(parameter: Parameter, value: Any) -> Any:
    return parameter.values()[value] if _by_place(parameter) else value


@lru_cache(maxsize=1)
def _bayesian_class() -> Any:
    base: Any = _keras_tuner().oracles.BayesianOptimizationOracle

    class Bayesian(base):  # type: ignore[misc]
        """Fits the Gaussian process to completed trials before it predicts the running ones, as a long-lived oracle would
        have."""

        def _vectorize_trials(self) -> Any:
            if self.ongoing_trials:
                known = copy.copy(self)
                known.ongoing_trials = {}
                known.trials = {name: trial for name, trial in self.trials.items() if trial.status == "COMPLETED"}
                self.gpr.fit(*base._vectorize_trials(known))
            return super()._vectorize_trials()

    return Bayesian


@lru_cache(maxsize=1)
def _hyperband_class() -> Any:
    base: Any = _keras_tuner().oracles.HyperbandOracle

    class Hyperband(base):  # type: ignore[misc]
        """Hyperband whose brackets know their index in the study, so that they can be restored from the trials' allotments."""

        def _start_new_bracket(self) -> None:
            super()._start_new_bracket()
            self._started = getattr(self, "_started", 0) + 1
            self._brackets[-1]["place"] = self._started - 1

        def place(self, trial_id: str, given: Allotment) -> None:
            """Restores a trial of the history to its bracket and round."""
            while self._started <= given.bracket:
                self._increment_bracket_num()
                self._start_new_bracket()
            past = None if given.continues is None else str(given.continues)
            self._brackets[given.bracket]["rounds"][given.round].append({"past_id": past, "id": trial_id})

        def allotment(self, trial_id: str, trials: list[optuna.trial.FrozenTrial]) -> Allotment:
            """The allotment of a trial that was just asked for."""
            bracket, turn, past = next(
                (bracket, number, info["past_id"])
                for bracket in self._brackets
                for number, infos in enumerate(bracket["rounds"])
                for info in infos
                if info["id"] == trial_id
            )
            epochs = self._get_epochs(bracket["bracket_num"], turn)
            if past is None:
                return Allotment(epochs, bracket["place"], turn, None, int(trial_id))
            before = allotment(trials[int(past)])
            return Allotment(epochs, bracket["place"], turn, int(past), before.origin if before else int(past))

    return Hyperband
