"""The promoted models and the baselines: the table of what they reached, and how the fine-tuning went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from reports.config import Run
from reports.section import LeftOutError, PageSection, Table
from reports.style import COLOURS, RATE_AXIS, figure, share
from search.leaderboard import leaders
from train.baselines.measure import load_baselines
from train.config import TrainRun
from train.evaluate import Metrics
from train.promotion.promote import load_metrics, promoted
from train.promotion.worker import promotion_folder

if TYPE_CHECKING:
    import plotly.graph_objects as go

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


class Finetuning(NamedTuple):
    """The history of one promotion, epoch 0 being the frozen network."""

    trial: int
    table: pd.DataFrame


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
                    config.schedule.kind if config else "unknown",
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
            ", ".join(f"{name} {value:g}" for name, value in found["chosen"].items()),
            {split: found[split] for split in SPLITS},
        )
        for found in load_baselines(run.workdir)
    ]


def collect_finetuning(run: TrainRun) -> list[Finetuning]:
    """The histories of the finished promotions."""
    return [Finetuning(number, pd.read_csv(promotion_folder(run, number) / "history.csv")) for number in promoted(run)]


def draw_finetuning(histories: list[Finetuning]) -> go.Figure:
    """Accuracy above, the learning rate below, over the same epochs."""
    drawn = figure("epoch", "accuracy", tickformat=".0%", domain=[0.34, 1])
    for history, colour in zip(histories, COLOURS * 2, strict=False):
        table, name = history.table, f"trial {history.trial}"
        for column, kind, dash in (("val_accuracy", "val", "solid"), ("accuracy", "train", "dot")):
            drawn.add_scatter(
                x=table["epoch"],
                y=table[column],
                mode="lines+markers",
                name=f"{name}, {kind}",
                line={"color": colour, "dash": dash},
            )
        drawn.add_scatter(
            x=table["epoch"],
            y=table["learning_rate"],
            mode="lines+markers",
            name=f"{name}, rate",
            line={"color": colour, "width": 1},
            yaxis="y2",
            showlegend=False,
        )
    drawn.update_layout(height=480, yaxis2={"title": "rate", "domain": [0, 0.26], **RATE_AXIS, "nticks": 4})
    drawn.update_xaxes(
        anchor="y2", dtick=1 if max((len(history.table) for history in histories), default=0) < 20 else None
    )
    return drawn


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
        "from accuracy. Epoch 0 of the figure is the frozen network."
    )
    if baselines:
        columns[1] = "backbone, or chosen"
        text += (
            " The baselines' probes see the same clean features, and validation chose their settings; the training photos of the "
            "nearest neighbours are measured without themselves."
        )
    figures = {"finetuning": draw_finetuning(collect_finetuning(run))} if rows else {}
    return PageSection("promotions", "Promoted models", text, figures, [Table(columns, table, {*range(2, 9), 10})])
