"""The promoted models on the page: several recipes of one trial, and epochs chosen by another objective."""

from __future__ import annotations

import numpy as np
import pytest

from features.runtime.errors import HeadhuntError
from reports.config import Run
from reports.models import learning, phases, promotions
from tests.fabricated import fabricate_promotion, history_table
from train.promotion.artifact import find_promotions


def test_two_recipes_of_a_trial_have_two_titles_and_two_curves(searched: Run) -> None:
    number = fabricate_promotion(searched, 0, {"accuracy": 0.5}, "0a1b2c3d")
    fabricate_promotion(searched, 0, {"accuracy": 0.6}, "ffb2c3d4")
    titles = [f"trial {number}, recipe {recipe}" for recipe in ("ffb2c3d4", "0a1b2c3d")]  # the best first
    section = promotions.section(searched)
    (table,) = section.tables
    assert [row[0] for row in table.rows] == [
        f"{title}, {stage}" for title in titles for stage in ("frozen", "fine-tuned")
    ]
    assert [block.title for block in section.blocks] == [f"How {title} was fine-tuned" for title in titles]
    assert [name for name, _ in section.every_figure()] == [
        "finetuning",
        f"finetuning-{number}-ffb2c3d4",
        f"finetuning-{number}-0a1b2c3d",
    ]
    drawn = section.figures["finetuning"]
    assert [line.name for line in drawn.data if line.mode == "lines"] == titles


def test_a_frozen_promotion_is_titled_like_the_others_and_has_scales_of_its_own(searched: Run) -> None:
    number = fabricate_promotion(searched, best_epoch=0, unfrozen=[])
    fabricate_promotion(searched, recipe="ffb2c3d4", tuned={"accuracy": 0.1})
    other, frozen = find_promotions(searched)[::-1]
    assert frozen.is_frozen
    losses = history_table([0, 1], [0.9, 0.8]).assign(loss=[np.nan, 40.0], val_loss=[0.3, 50.0])
    losses.to_csv(other.folder / "history.csv", index=False)
    history_table([0, 1], [0.9, 0.8]).to_csv(frozen.folder / "history.csv", index=False)  # losses 0.1, 0.2 and 1.2
    frozen_block, other_block = promotions.section(searched).blocks
    assert frozen_block.title == f"What fine-tuning tried: trial {number}, recipe 0a1b2c3d"
    (figure,), (beside,) = frozen_block.figures.values(), other_block.figures.values()
    assert 1.2 < figure.layout.yaxis2.range[1] < 2
    assert beside.layout.yaxis2.range[1] > 50


def test_the_curve_goes_by_the_objective_that_chose_the_epochs() -> None:
    history = history_table([0, 1, 1, 2], [0.5, 0.9, 0.6, 0.7]).assign(
        val_loss=[1.0, 2.0, 0.1, 0.5], val_top5_accuracy=[0.5, 0.6, 0.7, 0.9]
    )
    best, thrown_away = {}, {}
    for objective in ("val_accuracy", "val_loss", "val_top5_accuracy"):
        curve = phases.stitch("trial 3", history, objective)
        best[objective] = curve.best["epoch"]
        thrown_away[objective] = curve.table["epoch"][curve.table["thrown_away"]].tolist()
        (star,) = [line for line in learning.draw(curve, "phase").data if line.name == learning.CHOSEN_BY[objective]]
        assert (list(star.x), list(star.y)) == ([curve.best["epoch"]], [curve.best["val_accuracy"]])
    assert best == {"val_accuracy": 1, "val_loss": 2, "val_top5_accuracy": 3}
    assert thrown_away == {"val_accuracy": [2], "val_loss": [], "val_top5_accuracy": []}


def test_a_history_without_its_losses_is_damaged(searched: Run) -> None:
    fabricate_promotion(searched)
    (promotion,) = find_promotions(searched)
    history = history_table([0, 1], [0.5, 0.6])
    for damaged in (history.assign(val_loss=np.nan), history.drop(columns="val_top5_accuracy"), history[:0]):
        damaged.to_csv(promotion.folder / "history.csv", index=False)
        with pytest.raises(HeadhuntError, match=r"history.csv cannot be read \(columns or values are missing\)"):
            phases.collect(promotion, "val_top5_accuracy")
