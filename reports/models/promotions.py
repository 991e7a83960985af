"""The promoted models and the baselines: the table of what they reached, and how the fine-tuning went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from features.dataset.index import SPLITS
from features.runtime.errors import HeadhuntError
from features.runtime.log import relative
from reports.config import Run
from reports.models import learning, phases
from reports.section import LeftOutError, PageSection, Table
from reports.style import TOP5, share
from search.leaderboard import leaders
from search.ranking import OPTIMISTIC
from search.trial import TrialConfig
from train.baselines.measure import load_baselines
from train.config import TrainRun
from train.evaluate import Metrics
from train.promotion.artifact import MODEL, Promotion, damaged_promotions, find_promotions
from train.tested import use_of_test_photos

SHOWN = tuple(reversed(SPLITS))
"""The splits in the order of the table: test first, which then fits on a phone beside the model."""


class BaselineRow(NamedTuple):
    """One line of the table: a baseline, what validation chose for it, and its metrics by split."""

    title: str
    chosen: str
    metrics: dict[str, Metrics]


class PromotedRow(NamedTuple):
    """One line of the table: a promotion's frozen head or its exported network, accuracies as shares by split; `ece` is the
    expected calibration error on the test photos, None where it was not measured."""

    title: str
    stage: str
    head: str
    dropout: str
    schedule: str
    top1: dict[str, float]
    top5: dict[str, float]
    ece: float | None


def collect(run: TrainRun, promotions: Sequence[Promotion]) -> list[PromotedRow]:
    """For each promotion a row of the frozen head, and one of the network where fine-tuning made it another."""
    configs = {leader.number: leader.config for leader in leaders(run)}
    rows = []
    for each in promotions:
        head, dropout, schedule = _described(configs.get(each.trial))
        tuned = f"{each.stage}, head alone" if each.is_head_alone else each.stage
        stages = {"frozen": each.metrics.frozen, tuned: each.metrics.tuned}
        for stage, metrics in stages.items():
            top1 = {split: numbers["accuracy"] for split, numbers in metrics.items()}
            top5 = {split: numbers["top5_accuracy"] for split, numbers in metrics.items()}
            ece = metrics["test"].get("ece") if "test" in metrics else None
            rows.append(PromotedRow(each.title, stage, head, dropout, schedule, top1, top5, ece))
    return rows


def _described(config: TrialConfig | None) -> tuple[str, str, str]:
    """Hidden units, dropout and schedule of a trial, in words."""
    if config is None:
        return "unknown", "unknown", "unknown"
    if config.hypermodel is not None:
        return config.hypermodel.function, "", ""
    units = " → ".join(map(str, config.head.units)) or "none"
    return units, f"{config.head.dropout:g}", "" if config.is_probe else config.schedule.kind


def collect_baselines(run: TrainRun) -> list[BaselineRow]:
    """A row for each baseline that has been measured."""
    return [
        BaselineRow(
            found["title"],
            ", ".join(f"{name} {value:.3g}" for name, value in found["chosen"].items()),
            {split: found[split] for split in SPLITS if split in found},
        )
        for found in load_baselines(run.workdir)
    ]


def section(run: Run) -> PageSection:
    """The table of the promoted models and baselines; LeftOutError where there is neither."""
    promotions, faults = find_promotions(run), damaged_promotions(run)
    faults += [
        f"{relative(each.folder / MODEL)} is missing. Delete its folder, then run `headhunt train promote` again."
        for each in promotions
        if not (each.folder / MODEL).exists()
    ]
    rows = collect(run, promotions)
    try:
        baselines = collect_baselines(run)
    except HeadhuntError as error:
        baselines, faults = [], [*faults, str(error)]
    if not rows and not baselines:
        raise LeftOutError(
            " ".join(faults) or "Nothing is promoted yet: `headhunt train promote` fine-tunes the best trials."
        )
    table = [
        [
            row.title,
            *(_share(row.metrics.get(split), "accuracy") for split in SHOWN),
            row.chosen,
            *(_share(row.metrics.get(split), "top5_accuracy") for split in SHOWN),
            _share(row.metrics.get("test"), "ece"),
            *("", "", ""),
        ]
        for row in baselines
    ]
    table += [
        [
            row.title,
            *(share(row.top1[split]) if split in row.top1 else "" for split in SHOWN),
            row.stage,
            *(share(row.top5[split]) if split in row.top5 else "" for split in SHOWN),
            "" if row.ece is None else share(row.ece),
            row.head,
            row.dropout,
            row.schedule,
        ]
        for row in rows
    ]
    columns = ["model", *SHOWN, "backbone", *(f"{split} {TOP5}" for split in SHOWN), "test ECE"]
    columns += ["hidden units", "dropout", "schedule"]
    text = (
        "Frozen: the head on the cached features of clean photos, or the exported network where no epoch of fine-tuning was "
        "better. Fine-tuned: the exported network, backbone and head together, or the head alone where the table says so. "
        f"Accuracy on the validation photos is {OPTIMISTIC}. "
        f"{use_of_test_photos(run)} ECE is the expected calibration error: how far confidence is from accuracy."
    )
    text += "".join(f" Left out: {fault}" for fault in faults)
    if baselines:
        columns[columns.index("backbone")] = "backbone, or chosen"
        text += (
            " The baselines' probes see the same clean features, and validation chose the number of neighbours, cross-validation "
            "on the training photos the L2 of the linear one; the training photos of the nearest neighbours are measured without "
            "themselves."
        )
    drawn, curves = [], []
    for each in promotions:
        try:
            curves.append(phases.collect(each, run.search.objective))
            drawn.append(each)
        except HeadhuntError as error:
            text += f" Left out: {error}"
    figures = {"finetuning": learning.draw_together(curves)} if len(curves) > 1 else {}
    blocks = phases.blocks(drawn, curves)
    if blocks:
        text += (
            " In the curves, training is measured on augmented photos with dropout, and its loss has the head's L2 penalty and "
            "label smoothing in it; rounding may set their validation a few photos apart from the exported network's in the "
            "table. A star marks the best epoch."
        )
    return PageSection(
        "promotions",
        "Promoted models",
        text,
        figures,
        [Table(columns, table, {*range(1, 4), *range(5, 9), 10})],
        blocks,
    )


def _share(numbers: Metrics | None, name: Literal["accuracy", "top5_accuracy", "ece"]) -> str:
    return "" if numbers is None or name not in numbers else share(numbers[name])
