"""Baselines, frozen heads and fine-tuned networks in one table, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from train.config import TrainRun
from train.evaluate import Metrics
from train.promotion.promote import load_metrics


def comparison_table(run: TrainRun, baselines: Sequence[dict[str, Any]], promotions: Sequence[dict[str, Any]]) -> Table:
    """A row for each baseline, and two, frozen and tuned, for each promotion; both in the form of their `--json` objects."""
    columns = ("model", "val", "val top-5", "test", "test top-5", "test loss", "test ECE", "seconds", "folder")
    table = Table(*columns, caption="Test photos were used once, after every choice was made.")
    for row in baselines:
        chosen = ", ".join(f"{name} {value:.3g}" for name, value in row["chosen"].items())
        title = f"{row['title']} ({chosen})" if chosen else row["title"]
        table.add_row(title, *_cells(row["val"], row["test"]), f"{row['seconds']:.0f}", "")
    for row in promotions:
        metrics = load_metrics(run, row["trial"])
        frozen, tuned = metrics["frozen"], metrics["tuned"]
        table.add_row(f"trial {row['trial']}, frozen", *_cells(frozen["val"], frozen["test"]), "", "")
        table.add_row(
            f"trial {row['trial']}, tuned", *_cells(tuned["val"], tuned["test"]), f"{row['seconds']:.0f}", row["folder"]
        )
    return table


def _cells(val: Metrics, test: Metrics) -> list[str]:
    """Accuracies of validation and test, then the loss and the calibration error of test (empty where an earlier version of the
    promotion did not measure it)."""
    shares = (val["accuracy"], val["top5_accuracy"], test["accuracy"], test["top5_accuracy"], test["loss"])
    return [*(f"{share:.4f}" for share in shares), f"{test['ece']:.4f}" if "ece" in test else ""]
