"""A table of cases for every schedule, and one contract for all."""

from __future__ import annotations

import math
import re
from typing import get_args

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from search.schedules import (
    SCHEDULES,
    Cosine,
    CosineRestarts,
    ExpRange,
    OneCycle,
    Plateau,
    Schedule,
    ScheduleConfig,
    StepDecay,
    Triangular,
    Triangular2,
    WarmupCosine,
)

pytestmark = pytest.mark.unit

PLANNED = [kind for kind, schedule in SCHEDULES.items() if not schedule.follows_loss]


def make(kind: str, **settings: object) -> ScheduleConfig:
    schedule: ScheduleConfig = TypeAdapter(Schedule).validate_python({"kind": kind, **settings})
    return schedule


def test_the_table_names_every_member_of_the_union() -> None:
    members = get_args(get_args(Schedule)[0])
    assert {member.model_fields["kind"].default: member for member in members} == SCHEDULES
    for kind, schedule in SCHEDULES.items():
        made = make(kind)
        assert type(made) is schedule
        assert TypeAdapter(Schedule).validate_python(made.model_dump(mode="json")) == made


def test_a_name_has_one_type_in_all_kinds_or_a_study_could_not_hold_them() -> None:
    types: dict[str, set[object]] = {}
    for schedule in SCHEDULES.values():
        for name, field in schedule.model_fields.items():
            types.setdefault(name, set()).add(field.annotation if name != "kind" else str)
    assert {name: found for name, found in types.items() if len(found) > 1} == {}


@pytest.mark.parametrize("kind", PLANNED)
@pytest.mark.parametrize("warmup_epochs", [0, 0.5, 1, 9])
@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (7, 30), (42, 5)])
def test_one_finite_rate_a_step_never_above_the_peak(kind: str, warmup_epochs: float, steps: int, epochs: int) -> None:
    schedule = make(kind, learning_rate=0.01, warmup_epochs=warmup_epochs)
    values = schedule.values(steps, epochs)
    assert values.shape == (steps * epochs,)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    assert values.max() <= np.float32(0.01)
    assert values.min() >= 0
    by_epoch = [schedule.rates_of_epoch(epoch, steps, epochs) for epoch in range(epochs)]
    assert np.array_equal(np.concatenate(by_epoch), values)


@pytest.mark.parametrize("kind", PLANNED)
def test_a_warm_up_rises_to_where_the_schedule_begins_and_leaves_it_the_rest(kind: str) -> None:
    values = make(kind, warmup_epochs=2).values(5, 9)
    rest = make(kind, warmup_epochs=0).values(5, 7)
    assert np.array_equal(values[10:], rest)
    assert values[:10] == pytest.approx(rest[0] * np.arange(1, 11) / 10)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("epoch", [-1, 3])
def test_an_epoch_that_is_not_part_of_the_training(kind: str, epoch: int) -> None:
    message = f"`0 <= epoch < epochs` must hold, but got epoch={epoch}, epochs=3"
    with pytest.raises(ValueError, match=re.escape(message)):
        make(kind).rates_of_epoch(epoch, 4, 3, [1.0] * 9)


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
    """The 2021 notebook's: 329 steps per epoch, half a cycle 1645 steps, gamma 0.99994, from 4e-6 to 4e-4."""
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


def test_warmup_cosine_is_cosine_with_a_warm_up() -> None:
    assert WarmupCosine().warmup_epochs == 2
    assert np.array_equal(
        WarmupCosine(floor_share=0.1).values(6, 9), Cosine(floor_share=0.1, warmup_epochs=2).values(6, 9)
    )


@pytest.mark.parametrize("total", [1, 2, 3, 9, 77])
@pytest.mark.parametrize("rise_share", [0.1, 0.3, 0.8])
def test_one_cycle_is_pytorchs(total: int, rise_share: float) -> None:
    """OneCycleLR(max_lr=0.1, total_steps, pct_start, div_factor=25, final_div_factor=1e4), phase by phase as it does it."""
    start, peak, end = 0.1 / 25, 0.1, 0.1 / 25 / 1e4
    phases = [(rise_share * total - 1, start, peak), (total - 1, peak, end)]

    def rate(step: int) -> float:
        phase_start = 0.0
        for phase_end, first, last in phases:
            if step <= phase_end or phase_end == phases[-1][0]:
                done = (step - phase_start) / (phase_end - phase_start)
                return last + (first - last) / 2 * (1 + math.cos(math.pi * done))
            phase_start = phase_end
        raise AssertionError

    values = OneCycle(learning_rate=0.1, rise_share=rise_share).values(1, total)
    assert values == pytest.approx([rate(step) for step in range(total)], rel=1e-5, abs=1e-10)


def test_many_short_periods_are_as_exact_as_a_few() -> None:
    values = CosineRestarts(learning_rate=1.0, first_period_epochs=1e-9, multiplier=1).values(50, 400)
    assert (values == 1).all()  # a period has at least one step
    values = CosineRestarts(learning_rate=1.0, first_period_epochs=0.5, multiplier=1).values(8, 400)
    assert np.array_equal(values, np.tile(values[:4], 800))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "cosin"}, "'kind' does not match any of the expected tags: 'constant', 'step_decay', 'exponential'"),
        ({"kind": "constant", "learning_rate": 0}, "greater than 0"),
        ({"kind": "constant", "factor": 1}, "not permitted"),
        ({"kind": "constant", "warmup_epochs": -1}, "greater than or equal to 0"),
        ({"kind": "polynomial", "power": 0}, "greater than 0"),
        ({"kind": "one_cycle", "rise_share": 1}, "less than 1"),
        ({"kind": "plateau", "rise_factor": 1}, "greater than 1"),
        ({"kind": "plateau", "patience_epochs": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_schedules(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Schedule).validate_python(wrong)
    assert message in str(caught.value)


# Reduce on plateau


def rates(schedule: Plateau, losses: list[float]) -> list[float]:
    """The rate of every epoch of a training with these validation losses; all its steps must have it."""
    found = [schedule.rates_of_epoch(epoch, 3, len(losses), losses) for epoch in range(len(losses))]
    assert all((epoch == epoch[0]).all() and epoch.dtype == np.float32 and epoch.shape == (3,) for epoch in found)
    return [float(epoch[0]) for epoch in found]


def test_the_rate_falls_where_the_loss_stands_still() -> None:
    schedule = Plateau(learning_rate=1.0, factor=0.1, patience_epochs=2, floor=0.005)
    losses = [3.0, 2.0, 2.0, 1.99995, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert rates(schedule, losses) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.005, 0.005])


def test_a_floor_above_the_first_rate_does_not_raise_it() -> None:
    assert rates(Plateau(learning_rate=1e-3, patience_epochs=1, floor=0.1), [1.0] * 4) == pytest.approx([1e-3] * 4)


def test_one_brief_rise_and_then_the_decay_goes_on_from_there() -> None:
    schedule = Plateau(learning_rate=1.0, patience_epochs=2, floor=0, rise_factor=8, rise_epochs=3, rise_at_plateau=2)
    falls = [1, 1, 1, 0.5, 0.5]
    assert rates(schedule, [1.0] * 14) == pytest.approx([*falls, 4, 4, 4, 2, 2, 1, 1, 0.5, 0.5])
    at_the_first = schedule.model_copy(update={"rise_at_plateau": 1})
    assert rates(at_the_first, [1.0] * 10) == pytest.approx([1, 1, 1, 8, 8, 8, 4, 4, 2, 2])


def test_epochs_of_the_warm_up_rise_one_by_one_and_their_losses_do_not_count() -> None:
    schedule = Plateau(learning_rate=1.0, warmup_epochs=2, patience_epochs=1, floor=0)
    assert rates(schedule, [0.1, 0.1, 5.0, 5.0, 5.0]) == pytest.approx([0.25, 0.75, 1, 1, 0.5])
    assert rates(schedule.model_copy(update={"warmup_epochs": 0.4}), [1.0])[0] == 1


def test_later_losses_are_not_looked_at_and_missing_ones_are_named() -> None:
    schedule = Plateau(patience_epochs=1)
    assert np.array_equal(schedule.rates_of_epoch(2, 3, 9, [1, 1]), schedule.rates_of_epoch(2, 3, 9, [1, 1, 0, 0, 0]))
    message = "`len(val_losses) >= epoch` must hold for a plateau schedule, but got len(val_losses)=1, epoch=2"
    with pytest.raises(ValueError, match=re.escape(message)):
        schedule.rates_of_epoch(2, 3, 9, [1.0])
    with pytest.raises(
        ValueError, match=r"follow the validation loss, so they are unknown in advance\. Call rates_of_epoch"
    ):
        schedule.values(3, 9)
