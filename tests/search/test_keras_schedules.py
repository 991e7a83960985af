"""A search's array and Keras's optimiser get the same rates from every schedule, on both backends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from pydantic import TypeAdapter

from search.schedules import (
    SCHEDULES,
    Cosine,
    CosineRestarts,
    Exponential,
    Plateau,
    PlateauRule,
    Polynomial,
    Schedule,
    ScheduleConfig,
    WarmupCosine,
)
from search.schedules.keras_form import keras_callbacks, keras_rate
from tests.forks import run_python

PLANNED = [kind for kind, schedule in SCHEDULES.items() if not schedule.follows_loss]


def make(kind: str, **settings: Any) -> ScheduleConfig:
    settings = (
        {"patience_epochs": 1, "rise_factor": 3.0, "rise_epochs": 2, **settings} if kind == "plateau" else settings
    )
    schedule: ScheduleConfig = TypeAdapter(Schedule).validate_python({"kind": kind, "learning_rate": 0.1, **settings})
    return schedule


@pytest.mark.parametrize("kind", PLANNED)
@pytest.mark.parametrize(("steps", "epochs", "warmup_epochs"), [(1, 1, 0), (7, 3, 1), (5, 12, 0), (4, 9, 2.5)])
def test_the_optimiser_moves_by_the_values(kind: str, steps: int, epochs: int, warmup_epochs: float) -> None:
    schedule = make(kind, warmup_epochs=warmup_epochs)
    optimizer, weight = keras.optimizers.SGD(keras_rate(schedule, steps, epochs)), keras.Variable(0.0)
    moved = []
    for _ in range(steps * epochs + 2):
        weight.assign(0.0)
        optimizer.apply([keras.ops.convert_to_tensor(-1.0)], [weight])
        moved.append(float(weight))
    values = schedule.values(steps, epochs)
    assert np.array_equal(moved[:-2], values)
    assert moved[-2:] == [values[-1]] * 2


def fitted(
    schedule: ScheduleConfig, steps: int, epochs: int, begin: int = 0, val_losses: Sequence[float] = ()
) -> tuple[list[list[float]], list[float]]:
    """The rates by which `fit` moved a separate weight in each step of each epoch, and the validation losses, which are the sums
    of an epoch's rates."""
    inputs = keras.Input((steps,))
    outputs = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.SGD(keras_rate(schedule, steps, epochs)),
        loss=lambda wanted, got: -keras.ops.mean(got),
        jit_compile=keras.backend.backend() == "jax",
    )
    moved: list[list[float]] = []

    class Moves(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.set_weights([np.zeros((steps, 1), np.float32)])

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            moved.append(self.model.get_weights()[0].ravel().tolist())

    history = model.fit(
        np.eye(steps, dtype=np.float32),
        np.zeros((steps, 1), np.float32),
        batch_size=1,
        initial_epoch=begin,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        validation_data=(-np.ones((1, steps), np.float32), np.zeros((1, 1), np.float32)),
        callbacks=[Moves(), *keras_callbacks(schedule, steps, epochs, val_losses)],
    ).history
    return moved, history["val_loss"]


def check_fit(schedule: ScheduleConfig, steps: int, epochs: int) -> None:
    moved, val_losses = fitted(schedule, steps, epochs)
    assert len(moved) == epochs
    for epoch, rates in enumerate(moved):
        assert np.array_equal(rates, schedule.rates_of_epoch(epoch, steps, epochs, val_losses[:epoch]))


@pytest.mark.parametrize("kind", ["exp_range", "one_cycle", "plateau"])
@pytest.mark.parametrize(("steps", "epochs", "warmup_epochs"), [(1, 1, 0), (3, 11, 0), (4, 9, 2)])
def test_fit_follows_it(kind: str, steps: int, epochs: int, warmup_epochs: float) -> None:
    check_fit(make(kind, warmup_epochs=warmup_epochs), steps, epochs)


def test_a_plateau_goes_on_where_the_fit_before_ended() -> None:
    schedule = make("plateau")
    whole, val_losses = fitted(schedule, 2, 9)
    assert len({rates[0] for rates in whole}) > 3
    rest, _ = fitted(schedule, 2, 9, begin=5, val_losses=val_losses[:5])
    assert rest == whole[5:]


def saved_model(path: Path) -> ScheduleConfig:
    """Saves a compiled model that has made 3 steps of a schedule of 12; returns the schedule."""
    schedule = make("one_cycle", warmup_epochs=1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(keras_rate(schedule, 4, 3)), loss="mse")
    model.fit(np.ones((3, 2), np.float32), np.ones((3, 1), np.float32), batch_size=1, verbose=0)
    model.save(path)
    return schedule


OTHER_PROCESS = """
import sys
sys.path[:0] = [{folder!r}]
import keras
import numpy as np
from search.schedules.keras_form import planned_rates
from test_keras_schedules import SCHEDULES, check_fit, make
assert keras.backend.backend() == "jax"
planned_rates()
model = keras.models.load_model(sys.argv[1])
schedule = make("one_cycle", warmup_epochs=1)
assert model.optimizer._learning_rate.schedule == schedule
for step in range(3, 14):
    assert float(model.optimizer.learning_rate) == schedule.values(4, 3)[min(step, 11)]
    model.fit(np.ones((1, 2), np.float32), np.ones((1, 1), np.float32), verbose=0)
for kind in SCHEDULES:
    check_fit(make(kind, warmup_epochs=1), 3, 8)
"""


def test_a_compiled_model_is_saved_and_goes_on_in_another_process_on_jax(tmp_path: Path) -> None:
    saved_model(tmp_path / "model.keras")
    code = OTHER_PROCESS.format(folder=str(Path(__file__).parent))
    done = run_python(code, str(tmp_path / "model.keras"))
    assert done.returncode == 0, done.stderr


def test_a_copy_from_its_configuration_is_the_same() -> None:
    rate = keras_rate(WarmupCosine(learning_rate=0.02), 5, 4)
    config = keras.optimizers.schedules.serialize(rate)
    again = keras.optimizers.schedules.deserialize(config)
    assert again.schedule == rate.schedule
    assert float(again(7)) == float(rate(7)) == WarmupCosine(learning_rate=0.02).values(5, 4)[7]


SAME_IN_KERAS = {
    "cosine": (
        Cosine(learning_rate=0.1, floor_share=0.2),
        lambda: keras.optimizers.schedules.CosineDecay(0.1, decay_steps=120, alpha=0.2),
    ),
    "cosine_restarts": (
        CosineRestarts(learning_rate=0.1, first_period_epochs=2, multiplier=2, floor_share=0.2),
        lambda: keras.optimizers.schedules.CosineDecayRestarts(0.1, first_decay_steps=20, t_mul=2.0, alpha=0.2),
    ),
    "cosine_restarts_of_one_length": (
        CosineRestarts(learning_rate=0.1, first_period_epochs=3, multiplier=1),
        lambda: keras.optimizers.schedules.CosineDecayRestarts(0.1, first_decay_steps=30, t_mul=1.0),
    ),
    "exponential": (
        Exponential(learning_rate=0.1, factor=0.7, every_epochs=3, floor=0),
        lambda: keras.optimizers.schedules.ExponentialDecay(0.1, decay_steps=30, decay_rate=0.7),
    ),
    "polynomial": (
        Polynomial(learning_rate=0.1, floor_share=0.1, power=2),
        lambda: keras.optimizers.schedules.PolynomialDecay(0.1, decay_steps=120, end_learning_rate=0.01, power=2.0),
    ),
}


@pytest.mark.parametrize("name", SAME_IN_KERAS)
def test_what_keras_has_too_is_the_same(name: str) -> None:
    schedule, in_keras = SAME_IN_KERAS[name]
    same = in_keras()
    assert schedule.values(10, 12) == pytest.approx([float(same(step)) for step in range(120)], rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("factor", "patience_epochs", "floor"), [(0.5, 1, 1e-3), (0.1, 3, 0.0)])
def test_a_plateau_without_a_rise_is_keras_reduce_lr_on_plateau(
    seed: int, factor: float, patience_epochs: int, floor: float
) -> None:
    losses = 1 + np.random.default_rng(seed).normal(0, 0.3, 60).cumsum() / 10 - np.linspace(0, 0.5, 60)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    callback = keras.callbacks.ReduceLROnPlateau(factor=factor, patience=patience_epochs, min_lr=floor)
    callback.set_model(model)
    callback.on_train_begin()
    rule = PlateauRule(factor=factor, patience_epochs=patience_epochs, floor=floor)
    expected, rates = [], []
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        expected.append(float(model.optimizer.learning_rate))
        rates.append(rule.rate_after(0.1, losses[: epoch + 1].tolist()))
    assert rates == pytest.approx(expected, rel=1e-5)
    assert len(set(rates)) > 2


def test_a_plateaus_first_rate_is_its_warm_ups() -> None:
    assert keras_rate(Plateau(learning_rate=0.1, warmup_epochs=2), 3, 9) == np.float32(0.025)
