"""Axes and labels of figures: few, whole, and different from each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reports.study import (
    history,
)
from reports.style import log_ticks, rate_axis, shortened, whole_ticks


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["short", "exactly ten"], ["short", "exactly t…"]),
        (["Audi A4 Sedan 2010", "Audi A4 Sedan 2012"], ["Audi …2010", "Audi …2012"]),
        (["abcdefgh 1 stuvwxyz", "abcdefgh 2 stuvwxyz"], ["abcdefgh 1 stuvwxyz", "abcdefgh 2 stuvwxyz"]),
        (["the same one", "the same one"], ["the same …", "the same …"]),
    ],
)
def test_names_are_cut_so_that_they_can_be_told_apart(names: list[str], labels: list[str]) -> None:
    assert shortened(names, 10) == labels


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1e-4, 1e-2, ["1e-4", "3e-4", "1e-3", "3e-3", "1e-2"]),
        (2e-6, 8e-3, ["1e-5", "1e-4", "1e-3", "1e-2"]),
        (1e-12, 1, ["1e-12", "1e-9", "1e-6", "1e-3", "1e0"]),
        (20, 70, ["2e1", "3e1", "5e1", "1e2"]),
        (6e-3, 6e-3, ["5e-3"]),
    ],
)
def test_a_logarithmic_axis_has_few_labels(low: float, high: float, labels: list[str]) -> None:
    ticks = log_ticks(low, high)
    assert ticks["ticktext"] == labels
    assert ticks["tickvals"] == pytest.approx([float(label) for label in labels])


@pytest.mark.parametrize(
    ("rates", "ends", "labels"),
    [
        ([3e-3, 3e-3], [9.5e-4, 9.5e-3], ["1e-3", "3e-3", "1e-2"]),
        ([1e-2, 0.0, math.nan, 1e-9], [1e-6, 1e-2], ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2"]),
        ([], [1e-6, 1e-2], ["1e-6", "1e-5", "1e-4", "1e-3", "1e-2"]),
    ],
    ids=["constant", "down to nothing", "none"],
)
def test_an_axis_of_rates_spans_one_decade_to_four(rates: list[float], ends: list[float], labels: list[str]) -> None:
    axis = rate_axis(rates)
    assert 10 ** np.array(axis["range"]) == pytest.approx([ends[0] / 10**0.2, ends[1] * 10**0.2], rel=0.01)
    assert axis["ticktext"] == labels


@pytest.mark.parametrize(
    ("values", "step"), [([1, 2], 1), ([0, 6], 1), ([1, 8], 2), ([0, 30], 5), ([None, 0, 1000], 200), ([], 1)]
)
def test_ticks_of_epochs_are_whole_numbers(values: list[float | None], step: int) -> None:
    assert whole_ticks(values) == {"tick0": 0, "dtick": step}


def test_an_axis_of_shares_ends_at_0_and_100_percent() -> None:
    found = history.History("val_accuracy", [0, 1], [0.0, 0.0], ["complete"] * 2, [0.0, 0.0], {"complete": 2})
    axis = history.draw(found).layout.yaxis
    assert (axis.tickformat, axis.autorangeoptions.clipmin, axis.autorangeoptions.clipmax) == ("~%", 0, 1)
