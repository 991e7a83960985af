"""Samplers: made afresh for every ask, seeded by (search seed, trial number): an ask is a function of the history alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import optuna


def make_sampler(name: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that asks for trial `number`."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](seed, number)


def ask_again(study: optuna.Study, trial_id: int) -> optuna.Trial:
    """A trial whose driver was killed while asking for it, to be drawn once more from the beginning.

    Parameters that are stored already are drawn (and stored) again: to the same values, and the later ones then meet the random
    numbers in the same state as without the kill.
    """
    import optuna

    trial = optuna.trial.Trial(study, trial_id)
    trial._cached_frozen_trial.params = {}
    trial._cached_frozen_trial.distributions = {}
    return trial


def _mixed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _tpe(seed: int, number: int) -> optuna.samplers.BaseSampler:
    import optuna

    # Grouped: a parameter that exists in some trials only is modelled with the ones that it appears with.
    return optuna.samplers.TPESampler(seed=_mixed(seed, number), multivariate=True, group=True, constant_liar=True)


def _random(seed: int, number: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.RandomSampler(seed=_mixed(seed, number))


def _qmc(seed: int, number: int) -> optuna.samplers.BaseSampler:
    sampler: optuna.samplers.BaseSampler = _numbered_qmc()(seed, number)
    return sampler


@lru_cache(maxsize=1)
def _numbered_qmc() -> Any:
    import optuna

    class NumberedQMC(optuna.samplers.QMCSampler):
        """A Sobol sequence over the parameters of trial 0, trial n at its place n - 1; other parameters are drawn at random.

        Optuna's takes its place from a counter in the storage, which moves on when an ask is killed, and its parameters from the
        trials that happen to be running.
        """

        def __init__(self, seed: int, number: int) -> None:
            others = optuna.samplers.RandomSampler(seed=_mixed(seed, number))
            super().__init__(seed=seed, scramble=True, independent_sampler=others, warn_independent_sampling=False)
            self._number = number

        def infer_relative_search_space(
            self, study: optuna.Study, trial: optuna.trial.FrozenTrial
        ) -> dict[str, optuna.distributions.BaseDistribution]:
            first = study._storage.get_all_trials(study._study_id, deepcopy=False)[0]
            return dict(first.distributions) if trial.number else {}

        def _find_sample_id(self, study: optuna.Study, search_space: Any) -> int:
            return self._number - 1

    return NumberedQMC


SAMPLERS: dict[str, Callable[[int, int], optuna.samplers.BaseSampler]] = {"tpe": _tpe, "random": _random, "qmc": _qmc}
"""Every sampler by its name in `search.sampler`: (search seed, trial number) to the sampler of that trial."""
