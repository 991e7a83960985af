"""Baselines, frozen heads and fine-tuned networks in one table, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rich.table import Table

from features.runtime.log import relative
from search.ranking import OPTIMISTIC
from search.top5 import is_shown
from train.config import TrainRun
from train.evaluate import Metrics
from train.promotion.artifact import Promotion
from train.tested import use_of_test_photos


def comparison_table(run: TrainRun, baselines: Sequence[dict[str, Any]], promotions: Sequence[Promotion]) -> Table:
    """A row for each baseline (its `--json` object), and for each promotion one for the frozen head and one for the network after
    fine-tuning, where that is another."""
    top5 = is_shown(run)
    measured = ("val", "val top-5", "test", "test top-5") if top5 else ("val", "test")
    caption = f"A chosen model's validation accuracy is {OPTIMISTIC}. "
    table = Table(
        *("model", *measured, "test loss", "test ECE", "seconds", "folder"),
        caption=caption + use_of_test_photos(run) if run.train.evaluate_test else caption,
    )
    for row in baselines:
        chosen = ", ".join(f"{name} {value:.3g}" for name, value in row["chosen"].items())
        title = f"{row['title']} ({chosen})" if chosen else row["title"]
        table.add_row(title, *_cells(row["val"], row.get("test"), top5), f"{row['seconds']:.0f}", "")
    for each in promotions:
        frozen, tuned = each.metrics.frozen, each.metrics.tuned
        if not each.is_frozen:
            table.add_row(f"{each.title}, frozen", *_cells(frozen["val"], frozen.get("test"), top5), "", "")
        cells = _cells(tuned["val"], tuned.get("test"), top5)
        table.add_row(f"{each.title}, {each.stage}", *cells, f"{each.metrics.seconds:.0f}", relative(each.folder))
    return table


def _cells(val: Metrics, test: Metrics | None, top5: bool) -> list[str]:
    """Accuracies of validation and test, then the loss and the calibration error of test (empty where it was not measured)."""
    names: list[Literal["accuracy", "top5_accuracy"]] = ["accuracy", "top5_accuracy"] if top5 else ["accuracy"]
    shown = [f"{val[name]:.4f}" for name in names]
    if test is None:
        return [*shown, *[""] * (len(names) + 2)]
    shown += [f"{share:.4f}" for share in (*(test[name] for name in names), test["loss"])]
    return [*shown, f"{test['ece']:.4f}" if "ece" in test else ""]
