"""Every schedule by a table of cases, and one contract for all."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from search.schedules import (
    SCHEDULES,
    CosineRestarts,
    ExpRange,
    Schedule,
    ScheduleConfig,
    StepDecay,
    Triangular,
    Triangular2,
    WarmupCosine,
)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (7, 30), (42, 5)])
def test_one_finite_rate_a_step_never_above_the_peak(kind: str, steps: int, epochs: int) -> None:
    schedule: ScheduleConfig = TypeAdapter(Schedule).validate_python({"kind": kind, "learning_rate": 0.01})
    values = schedule.values(steps, epochs)
    assert values.shape == (steps * epochs,)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert values.max() <= 0.01 * (1 + 1e-6)
    assert values.min() >= 0
    assert TypeAdapter(Schedule).validate_python(schedule.model_dump()) == schedule


def test_step_decay_by_factor_interval_and_floor() -> None:
    values = StepDecay(learning_rate=1e-3, factor=0.1, every_epochs=2, floor=5e-5).values(2, 8)
    assert values[::4] == pytest.approx([1e-3, 1e-4, 5e-5, 5e-5])
    assert (values.reshape(-1, 4) == values[::4, None]).all()


def test_triangular_goes_up_and_down_in_two_half_cycles() -> None:
    values = Triangular(learning_rate=1.0, floor_share=0.2, half_cycle_epochs=2).values(2, 8)
    assert values[[0, 2, 4, 6, 8, 12]] == pytest.approx([0.2, 0.6, 1.0, 0.6, 0.2, 1.0])


def test_triangular2_halves_the_height_of_each_cycle() -> None:
    values = Triangular2(learning_rate=1.0, floor_share=0.0, half_cycle_epochs=1).values(2, 6)
    assert values[[2, 6, 10]] == pytest.approx([1.0, 0.5, 0.25])


def test_exp_range_shrinks_every_step() -> None:
    """The seed's: 329 steps an epoch, half a cycle 1645 steps, gamma 0.99994, from 4e-6 to 4e-4."""
    values = ExpRange(learning_rate=4e-4, floor_share=0.01, half_cycle_epochs=5, gamma=0.99994).values(329, 20)
    assert values[0] == pytest.approx(4e-6)
    assert values[1645] == pytest.approx(4e-6 + (4e-4 - 4e-6) * 0.99994**1645, rel=1e-5)
    assert values[3 * 1645] == pytest.approx(4e-6 + (4e-4 - 4e-6) * 0.99994 ** (3 * 1645), rel=1e-5)


def test_cosine_restarts_after_longer_and_longer_periods() -> None:
    values = CosineRestarts(learning_rate=1.0, first_period_epochs=1, multiplier=2).values(4, 7)
    assert values[[0, 2, 4, 8, 12]] == pytest.approx([1.0, 0.5, 1.0, 0.5, 1.0])


def test_warmup_rises_to_the_peak_and_falls_to_the_floor() -> None:
    values = WarmupCosine(learning_rate=1.0, warmup_epochs=2, floor_share=0.1).values(10, 12)
    assert values[19] == pytest.approx(1.0)
    assert values[0] == pytest.approx(0.05)
    assert values[-1] == pytest.approx(0.1, abs=1e-3)
    assert (np.diff(values[:20]) > 0).all()
    assert (np.diff(values[20:]) <= 0).all()


@pytest.mark.parametrize(
    "wrong", [{"kind": "cosine"}, {"kind": "constant", "learning_rate": 0}, {"kind": "constant", "factor": 1}]
)
def test_wrong_schedules(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Schedule).validate_python(wrong)
