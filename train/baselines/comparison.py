"""Baselines, frozen heads and fine-tuned networks in one table, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from features.runtime.log import relative
from search.ranking import OPTIMISTIC
from search.top5 import is_shown
from train.baselines.measure import BASELINES, BaselineResult
from train.config import TrainRun
from train.evaluate import Metrics, SplitMetrics
from train.ledger_summary import usage_of_test_photos
from train.promotion.artifact import Promotion


def comparison_table(run: TrainRun, baselines: Mapping[str, BaselineResult], promotions: Sequence[Promotion]) -> Table:
    """One row per baseline, and per promotion one for the frozen head and, if fine-tuning changed the network, one for the
    fine-tuned network."""
    top5 = is_shown(run)
    measured = ("val", "val top-5", "test", "test top-5") if top5 else ("val", "test")
    caption = f"A chosen model's validation accuracy is {OPTIMISTIC}. "
    table = Table(
        *("model", *measured, "test loss", "test ECE", "seconds", "folder"),
        caption=caption + usage_of_test_photos(run) if run.train.evaluate_test else caption,
    )
    for name, found in baselines.items():
        chosen = ", ".join(f"{what} {value:.3g}" for what, value in found.chosen.items())
        title = BASELINES[name].title
        table.add_row(
            f"{title} ({chosen})" if chosen else title, *_cells(found.metrics, top5), f"{found.seconds:.0f}", ""
        )
    for each in promotions:
        if not each.is_frozen:
            table.add_row(f"{each.title}, frozen", *_cells(each.frozen, top5), "", "")
        table.add_row(
            f"{each.title}, {each.stage}", *_cells(each.tuned, top5), f"{each.seconds:.0f}", relative(each.folder)
        )
    return table


def _cells(metrics: SplitMetrics, top5: bool) -> list[str]:
    """Validation and test accuracies, then test loss and test calibration error (empty if not measured)."""
    test, cells = metrics.test, _accuracies(metrics.val, top5)
    if test is None:
        return [*cells, *[""] * (len(cells) + 2)]
    ece = "" if test.ece is None else f"{test.ece:.4f}"
    return [*cells, *_accuracies(test, top5), f"{test.loss:.4f}", ece]


def _accuracies(metrics: Metrics, top5: bool) -> list[str]:
    shares = [metrics.accuracy, metrics.top5_accuracy] if top5 else [metrics.accuracy]
    return [f"{share:.4f}" for share in shares]
