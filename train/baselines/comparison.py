"""Baselines, frozen heads and fine-tuned networks in one table, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from features.command import relative
from train.config import TrainRun
from train.evaluate import Metrics
from train.promotion.artifact import Promotion
from train.tested import use_of_test_photos


def comparison_table(run: TrainRun, baselines: Sequence[dict[str, Any]], promotions: Sequence[Promotion]) -> Table:
    """A row for each baseline (its `--json` object), and for each promotion one for the frozen head and one for the network after
    fine-tuning, where that is another."""
    columns = ("model", "val", "val top-5", "test", "test top-5", "test loss", "test ECE", "seconds", "folder")
    caption = (
        "Validation photos ranked the trials and chose the epochs, so a chosen model's accuracy on them is optimistic. "
    )
    table = Table(*columns, caption=caption + use_of_test_photos(run) if run.train.evaluate_test else caption)
    for row in baselines:
        chosen = ", ".join(f"{name} {value:.3g}" for name, value in row["chosen"].items())
        title = f"{row['title']} ({chosen})" if chosen else row["title"]
        table.add_row(title, *_cells(row["val"], row.get("test")), f"{row['seconds']:.0f}", "")
    for each in promotions:
        frozen, tuned = each.metrics.frozen, each.metrics.tuned
        if not each.is_frozen:
            table.add_row(f"{each.title}, frozen", *_cells(frozen["val"], frozen.get("test")), "", "")
        cells = _cells(tuned["val"], tuned.get("test"))
        table.add_row(f"{each.title}, {each.stage}", *cells, f"{each.metrics.seconds:.0f}", relative(each.folder))
    return table


def _cells(val: Metrics, test: Metrics | None) -> list[str]:
    """Accuracies of validation and test, then the loss and the calibration error of test (empty where it was not measured)."""
    shown = [f"{val['accuracy']:.4f}", f"{val['top5_accuracy']:.4f}"]
    if test is None:
        return [*shown, *[""] * 4]
    shown += [f"{share:.4f}" for share in (test["accuracy"], test["top5_accuracy"], test["loss"])]
    return [*shown, f"{test['ece']:.4f}" if "ece" in test else ""]
