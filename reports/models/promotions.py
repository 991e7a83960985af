"""The promoted models and the baselines: the table of what they reached, and how the fine-tuning went."""

from __future__ import annotations

from typing import Any, NamedTuple

from reports.config import Run
from reports.models import learning, phases
from reports.section import LeftOutError, PageSection, Table
from reports.style import share
from search.leaderboard import leaders
from train.baselines.measure import load_baselines
from train.config import TrainRun
from train.evaluate import Metrics
from train.promotion.promote import load_metrics, promoted

SPLITS = ("train", "val", "test")


class BaselineRow(NamedTuple):
    """One line of the table: a baseline, what validation chose for it, and its metrics by split."""

    title: str
    chosen: str
    metrics: dict[str, Metrics]


class PromotedRow(NamedTuple):
    """One line of the table: a trial before or after fine-tuning, accuracies as shares by split; `ece` is the expected
    calibration error on the test photos, None where an earlier version did not measure it."""

    trial: int
    stage: str
    head: str
    dropout: str
    schedule: str
    top1: dict[str, float]
    top5: dict[str, float]
    ece: float | None


def collect(run: TrainRun) -> list[PromotedRow]:
    """Two rows for each finished promotion, the best first."""
    configs = {leader.number: leader.config for leader in leaders(run)}
    rows = []
    for number in promoted(run):
        metrics: dict[str, Any] = load_metrics(run, number)
        config = configs.get(number)
        head = " → ".join(map(str, config.head.units)) or "none" if config else "unknown"
        for stage, key in (("frozen", "frozen"), ("fine-tuned", "tuned")):
            rows.append(
                PromotedRow(
                    number,
                    stage,
                    head,
                    f"{config.head.dropout:g}" if config else "unknown",
                    ("" if config.is_probe else config.schedule.kind) if config else "unknown",
                    {split: metrics[key][split]["accuracy"] for split in SPLITS},
                    {split: metrics[key][split]["top5_accuracy"] for split in SPLITS},
                    metrics[key]["test"].get("ece"),
                )
            )
    return rows


def collect_baselines(run: TrainRun) -> list[BaselineRow]:
    """A row for each baseline that has been measured."""
    return [
        BaselineRow(
            found["title"],
            ", ".join(f"{name} {value:.3g}" for name, value in found["chosen"].items()),
            {split: found[split] for split in SPLITS},
        )
        for found in load_baselines(run.workdir)
    ]


def section(run: Run) -> PageSection:
    """The table of the promoted models and baselines; LeftOutError where there is neither."""
    rows, baselines = collect(run), collect_baselines(run)
    if not rows and not baselines:
        raise LeftOutError("Nothing is promoted yet: `headhunt train promote` fine-tunes the best trials.")
    table = [
        [
            row.title,
            row.chosen,
            *(share(row.metrics[split]["accuracy"]) for split in SPLITS),
            *(share(row.metrics[split]["top5_accuracy"]) for split in SPLITS),
            share(row.metrics["test"]["ece"]),
            *("", "", ""),
        ]
        for row in baselines
    ]
    table += [
        [
            f"trial {row.trial}",
            row.stage,
            *(share(row.top1[split]) for split in SPLITS),
            *(share(row.top5[split]) for split in SPLITS),
            "" if row.ece is None else share(row.ece),
            row.head,
            row.dropout,
            row.schedule,
        ]
        for row in rows
    ]
    columns = ["model", "backbone", "train", "val", "test", "train top-5", "val top-5", "test top-5", "test ECE"]
    columns += ["hidden units", "dropout", "schedule"]
    text = (
        "Frozen: the head on the cached features of clean photos. Fine-tuned: the exported network, backbone and head together. "
        "Test photos were used once, after every choice was made. ECE is the expected calibration error: how far confidence is "
        "from accuracy."
    )
    if baselines:
        columns[1] = "backbone, or chosen"
        text += (
            " The baselines' probes see the same clean features, and validation chose the number of neighbours, cross-validation "
            "on the training photos the L2 of the linear one; the training photos of the nearest neighbours are measured without "
            "themselves."
        )
    curves = phases.collect(run)
    figures = {"finetuning": learning.draw_together(curves)} if len(curves) > 1 else {}
    blocks = phases.blocks(run)
    if blocks:
        text += (
            " In the curves, training is measured on augmented photos with dropout, and its loss has the head's L2 penalty and "
            "label smoothing in it; rounding may set their validation a few photos apart from the exported network's in the "
            "table. A star marks the best epoch."
        )
    return PageSection(
        "promotions", "Promoted models", text, figures, [Table(columns, table, {*range(2, 9), 10})], blocks
    )
