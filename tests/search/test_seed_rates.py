"""The learning rates recorded by the 2021 runs, reproduced by the schedules they were trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from search.schedules import ExpRange, Plateau, PlateauRule, StepDecay

pytestmark = pytest.mark.unit

HISTORIES = Path(__file__).parents[3] / "shared" / "data" / "seed_histories"


def history(name: str) -> pd.DataFrame:
    if not HISTORIES.exists():
        pytest.skip(f"{HISTORIES} is not there")
    (file,) = HISTORIES.glob(f"*{name}*.csv")
    return pd.read_csv(file)


def test_the_step_decay_of_the_simple_network() -> None:
    """Divided by 1.3 every 10 epochs, from 5e-4."""
    recorded = history("FIRST_SIMPLE_MODEL")["lr"]
    schedule = StepDecay(learning_rate=5e-4, factor=1 / 1.3, every_epochs=10, floor=1e-6)
    assert schedule.values(329, 100)[::329] == pytest.approx(recorded, rel=1e-6)


def test_the_plateau_of_the_first_fine_tuning() -> None:
    """Its last 40 epochs: halved after 2 epochs without a better validation loss, from 2e-6 down to 5e-7."""
    recorded = history("FINE_TUNE_41_TO_80")
    schedule = Plateau(learning_rate=2e-6, factor=0.5, patience_epochs=2, floor=5e-7)
    rates = [float(schedule.rates_of_epoch(epoch, 1, 40, recorded["val_loss"].tolist())[0]) for epoch in range(40)]
    assert len(set(rates)) == 3
    assert rates == pytest.approx(recorded["lr"].tolist(), rel=1e-6)


def test_the_brief_rise_of_the_third_model() -> None:
    """The last 25 epochs: 25 times as high for 5 epochs, then down every 5, as the loss stayed above the lowest before."""
    recorded = history("ARCH2_LRDECAY2")
    losses, rates = recorded["val_loss"].tolist(), recorded["lr"].to_numpy()
    rule = PlateauRule(patience_epochs=5, rise_factor=25, rise_epochs=5)
    stalled = [min(losses[:101])] * 6  # its author judged the plateau by eye, after epoch 100
    planned = [rule.rate_after(1e-4, [*stalled, *losses[101:epoch]]) for epoch in range(101, 126)]
    assert planned[:5] == pytest.approx(rates[101:106])
    falls = [planned[start] / planned[start - 5] for start in (5, 10, 15, 20)]
    assert falls == pytest.approx([0.5] * 4)
    assert rates[[106, 111, 116, 121]] / rates[[101, 106, 111, 116]] == pytest.approx([0.8, 0.5, 0.5, 0.5])
    for start in (101, 106, 111, 116, 121):  # each lasts 5 epochs, as here
        assert len(set(rates[start : start + 5])) == len(set(planned[start - 101 : start - 96])) == 1


@pytest.mark.parametrize(("low", "high", "gamma"), [(4e-6, 4e-4, 0.99994), (6e-6, 1.2e-3, 0.99997)])
def test_the_cyclical_runs_by_their_formula(low: float, high: float, gamma: float) -> None:
    """Their histories hold no rates; this is the formula of TensorFlow Addons' ExponentialCyclicalLearningRate, which computes it
    in float32, where gamma^step drifts."""
    values = ExpRange(learning_rate=high, floor_share=low / high, half_cycle_epochs=5, gamma=gamma).values(329, 300)

    def by_formula(number: type[np.floating[Any]]) -> np.ndarray[Any, Any]:
        step, half = np.arange(329 * 300).astype(number), number(1645)
        cycle = np.floor(1 + step / (2 * half))
        height = np.maximum(number(0), 1 - np.abs(step / half - 2 * cycle + 1))
        rates: np.ndarray[Any, Any] = number(low) + (number(high) - number(low)) * height * number(gamma) ** step
        assert rates.dtype == number
        return rates

    assert values == pytest.approx(by_formula(np.float64), rel=1e-6)
    assert np.abs(values - by_formula(np.float32)).max() < 3e-4 * high
