"""Samplers: made afresh for every ask, seeded by (search seed, trial number): an ask is a function of the history alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import optuna


def make_sampler(name: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that asks for trial `number` (or for one that comes after the trials before it)."""
    import optuna

    mixed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](mixed, seed)


def _tpe(mixed: int, _: int) -> optuna.samplers.BaseSampler:
    import optuna

    # Grouped: a parameter that exists in some trials only is modelled with the ones that it appears with.
    return optuna.samplers.TPESampler(seed=mixed, multivariate=True, group=True, constant_liar=True)


def _random(mixed: int, _: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.RandomSampler(seed=mixed)


def _qmc(_: int, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    # A sequence is one only with one seed; its position is the number of trials in the storage.
    return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


SAMPLERS: dict[str, Callable[[int, int], optuna.samplers.BaseSampler]] = {"tpe": _tpe, "random": _random, "qmc": _qmc}
"""Every sampler by its name in `search.sampler`."""
