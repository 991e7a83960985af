"""The promoted models and the baselines: a table of their metrics, and the curves of the fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
from train.baselines.measure import BASELINES, load_baselines
from train.config import TrainRun
from train.evaluate import SplitMetrics
from train.ledger_summary import usage_of_test_photos
from train.promotion.artifact import MODEL, Promotion, damaged_promotions, find_promotions

SHOWN = tuple(reversed(SPLITS))
"""The splits in table order: test first, so that it fits on a phone beside the model."""


class BaselineRow(NamedTuple):
    """A row of the table: a baseline, its chosen hyperparameters, and its metrics by split."""

    title: str
    chosen: str
    metrics: SplitMetrics


class PromotedRow(NamedTuple):
    """A row of the table: a promotion's frozen head or its exported network."""

    title: str
    stage: str
    head: str
    dropout: str
    schedule: str
    metrics: SplitMetrics


def collect(run: TrainRun, promotions: Sequence[Promotion]) -> list[PromotedRow]:
    """A row for each promotion's frozen head, and one for its network if fine-tuning changed it."""
    configs = {leader.number: leader.config for leader in leaders(run)}
    rows: list[PromotedRow] = []
    for each in promotions:
        head, dropout, schedule = _described(configs.get(each.trial))
        tuned = f"{each.stage}, head alone" if each.is_head_alone else each.stage
        stages = {"frozen": each.frozen, tuned: each.tuned}
        rows += [PromotedRow(each.title, stage, head, dropout, schedule, found) for stage, found in stages.items()]
    return rows


def _described(config: TrialConfig | None) -> tuple[str, str, str]:
    """Hidden units, dropout and schedule of a trial, as text."""
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
            BASELINES[name].title,
            ", ".join(f"{what} {value:.3g}" for what, value in found.chosen.items()),
            found.metrics,
        )
        for name, found in load_baselines(run.workdir).items()
    ]


def section(run: Run) -> PageSection:
    """The table of the promoted models and baselines, and the fine-tuning curves; LeftOutError if there are neither."""
    promotions, faults = find_promotions(run), damaged_promotions(run)
    faults += [
        f"{relative(each.folder / MODEL)} is missing. Delete its folder, then rerun `headhunt train promote`."
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
            " ".join(faults) or "Nothing has been promoted yet: `headhunt train promote` fine-tunes the best trials."
        )
    table = [
        _cells(f"{row.title} ({row.chosen})" if row.chosen else row.title, row.metrics, "", "", "") for row in baselines
    ]
    table += [_cells(f"{row.title}, {row.stage}", row.metrics, row.head, row.dropout, row.schedule) for row in rows]
    columns = ["model", *SHOWN, *(f"{split} {TOP5}" for split in SHOWN), "test ECE"]
    columns += ["hidden units", "dropout", "schedule"]
    text = f"Accuracy on the validation photos is {OPTIMISTIC}. {usage_of_test_photos(run)}"
    notes = (
        "Frozen: the head on the cached features of clean photos, or the exported network if no epoch of fine-tuning was "
        "better. Fine-tuned: the exported network, backbone and head together, or only the head if the table says so. "
        "ECE is the expected calibration error: how far confidence is from accuracy."
    )
    text += "".join(f" Left out: {fault}" for fault in faults)
    if baselines:
        notes += (
            " The baselines' probes use the same clean features. The number of neighbours k was chosen on validation photos, the "
            "linear probe's L2 by cross-validation on training photos. In the nearest neighbours' training accuracy, a photo is "
            "not its own neighbour."
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
        notes += (
            " In the curves, training is measured on augmented photos with dropout, and its loss includes the head's L2 penalty "
            "and label smoothing. Because of rounding, their validation accuracy may differ by a few photos from that of the "
            "exported network in the table. A star marks the best epoch. Each promotion's figure has its own scales."
        )
    return PageSection(
        "promotions",
        "Promoted models",
        text,
        figures,
        [Table(columns, table, {*range(1, 8), 9})],
        blocks,
        notes=notes,
    )


def _cells(title: str, metrics: SplitMetrics, *described: str) -> list[str]:
    """A row of the table; cells that were not measured are empty."""
    splits = [metrics.evaluated().get(split) for split in SHOWN]
    top1 = ["" if found is None else share(found.accuracy) for found in splits]
    top5 = ["" if found is None else share(found.top5_accuracy) for found in splits]
    ece = None if metrics.test is None else metrics.test.ece
    return [title, *top1, *top5, "" if ece is None else share(ece), *described]
