"""The replay of completed studies under a pruner, with which the default pruner was chosen."""

from __future__ import annotations

import numpy as np
import pytest

from search.pruners.choice import make_pruner
from tests.benchmarks.evidence.replay import Costs, Replayed, regret, replay, seconds

CROSSING = np.array([[0.1, 0.2, 0.3, 0.9], [0.5, 0.5, 0.5, 0.5], [0.4, 0.6, 0.6, 0.6], [0.2, 0.3, 0.8, 0.8]])
"""Four trials of four epochs; the best of them starts as the worst."""


def test_without_a_pruner_nothing_is_lost_or_saved() -> None:
    done = replay(CROSSING, make_pruner("none", 4))
    assert done.epochs.tolist() == [4, 4, 4, 4] and done.complete.all()
    assert regret(CROSSING, done) == 0


def test_a_trial_ends_at_the_rung_that_prunes_it() -> None:
    done = replay(CROSSING, make_pruner("quarters", 4))
    assert done.epochs.tolist() == [1, 2, 4, 1]
    assert regret(CROSSING, done) == pytest.approx(0.3)


def test_later_generations_meet_the_trials_of_earlier_ones() -> None:
    """The second pair is below the first at its first rung, though not below its own half."""
    worse = np.concatenate([CROSSING[1:3], CROSSING[[0, 3]] / 2])
    done = replay(worse, make_pruner("quarters", 4), generation=2)
    assert done.epochs[2:].tolist() == [1, 1]


def test_seconds_are_those_of_the_slowest_worker_at_every_rung() -> None:
    done = Replayed(np.array([4, 1, 4]), np.array([True, False, True]))
    costs = Costs(start=np.array([1.0, 1.0, 1.0]), epoch=np.array([1.0, 2.0, 3.0]))
    # To the first rung 2, 3 and 4 s on two workers: 5; then 3 × 1 and 3 × 3 s side by side: 9.
    assert seconds(done, [1], costs) == 14
    assert seconds(done, [1], costs, workers=1) == 2 + 3 + 4 + 3 + 9
