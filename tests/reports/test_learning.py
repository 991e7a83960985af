"""Learning curves of promotions, stitched over their phases."""

from __future__ import annotations

import numpy as np
import pytest

from reports.models import learning, phases
from tests.fabricated import PHASES, history_table

pytestmark = pytest.mark.unit

THREE = history_table([0, 1, 1, 1, 2, 2, 3, 3], [0.5, 0.6, 0.8, 0.7, 0.75, 0.79, 0.6, 0.9])
"""Phases 2 and 3 both start from the weights of epoch 2."""


def test_epochs_after_the_one_that_a_phase_begins_with_are_thrown_away() -> None:
    curve = phases.stitch("trial 3", THREE)
    assert curve.starts == [0, 4, 6]
    assert curve.table["thrown_away"].tolist() == [False] * 3 + [True] * 3 + [False] * 2
    assert curve.kept["epoch"].tolist() == [0, 1, 2, 6, 7]
    assert (curve.best["epoch"], curve.best["val_accuracy"], curve.lowest_loss["epoch"]) == (7, 0.9, 7)


def test_a_last_phase_that_gained_nothing_leaves_the_best_epoch_where_it_was() -> None:
    curve = phases.stitch("trial 3", THREE.iloc[:6])
    assert curve.best["epoch"] == 2
    told = phases.describe(curve, [phase.title for phase in PHASES])
    assert told == (
        "Phase 1 trained the head, 3 epochs. Phase 2 started from the weights of epoch 2 and trained the head and the last 5 "
        "convolutional layers, 2 epochs. The best was epoch 2: 80.0 % on the validation photos, against 50.0 % for the "
        "frozen network (epoch 0). Faint epochs were discarded: the next phase started from an earlier one."
    )
    nothing = phases.stitch("trial 3", history_table([0, 1], [0.5, 0.4]))
    assert "No epoch was better than the frozen network, 50.0 %" in phases.describe(nothing, ["the head"])


def test_the_figure_has_three_axes_two_marks_and_a_line_for_each_later_phase() -> None:
    curve = phases.stitch("trial 3", THREE)
    drawn = learning.draw(curve, "phase")
    lines = {(line.name, line.yaxis): line for line in drawn.data}
    assert list(lines["validation", "y"].x) == [0, 1, 2, 6, 7]
    faint = lines["discarded", "y"]
    assert list(faint.x) == [2, 3, None, 2, 4, 5, None]
    assert faint.opacity < 0.5
    assert list(lines["highest validation accuracy", "y"].x) == [7]
    assert lines["learning rate", "y3"].line.color == drawn.layout.colorway[8]
    assert [shape.x0 for shape in drawn.layout.shapes] == [3.5, 5.5]
    assert [label.text for label in drawn.layout.annotations] == ["1", "2", "3"]
    assert sum(bool(line.showlegend is not False) for line in drawn.data) == 5


def test_the_axis_holds_all_values_and_several_curves_share_a_figure() -> None:
    curve = phases.stitch("one", THREE)
    longer = phases.stitch("two", history_table([0, *[1] * 20], np.linspace(0.1, 0.95, 21).tolist()))
    low, high = learning.draw(longer, "phase").layout.yaxis.range
    assert low < 0.01 < 0.95 < high
    together = learning.draw_together([curve, longer])
    assert [line.name for line in together.data if line.mode == "lines"] == ["one", "two"]


def test_without_rates_there_is_no_axis_for_them() -> None:
    drawn = learning.draw(phases.stitch("trial 3", THREE.assign(learning_rate=np.nan)), "phase")
    assert {line.yaxis for line in drawn.data} == {"y", "y2"}
    assert drawn.layout.xaxis.anchor == "y2"
    zero = learning.draw(phases.stitch("trial 3", THREE.assign(learning_rate=0.0)), "phase")
    assert zero.layout.yaxis3.range == pytest.approx((-6.2, -1.8))
