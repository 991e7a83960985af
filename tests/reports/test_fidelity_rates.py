"""The rates of a fidelity study are measured on the run's own photos, network and caches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import reports.fidelity.cost
from reports.config import Run
from reports.fidelity.cost import measure_rates
from search.leaderboard import leaders


def test_every_rate_is_measured(searched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports.fidelity.cost, "_per_photo", once)
    rates = measure_rates(searched, leaders(searched)[0], 8)
    assert rates.photos == 8
    assert all(seconds > 0 for seconds in rates)
    assert not list((searched.workdir / ".cost").iterdir())


def once(work: Callable[[int], Any], photos: int) -> float:
    """Two passes of the work, not timed: on a quick machine the difference of two times may be zero."""
    work(2)
    return 1 / photos
