"""Runs all stages in sequence and prints a summary table.

Each stage runs in its own process, because a process cannot change its Keras backend: the search trains on JAX, the
convolutional stages on TensorFlow.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from features.dataset.index import load_index
from features.runtime.commands.frame import (
    Output,
)
from features.runtime.commands.stages import run_stage
from features.runtime.log import counted, log
from features.runtime.workers.executors import check_devices
from reports.config import Run
from reports.dataset.section import collect as dataset_facts
from search.confirm.ranking import Confirmed
from search.confirm.table import show_interval
from search.leaderboard import leaders
from search.ranking import OPTIMISTIC
from search.searched_views import check_choices
from search.top5 import is_informative
from train.exports.record import ExportResult
from train.promotion.artifact import PromoteResult, PromotionSummary


class Stage(NamedTuple):
    """A command of `run`, and what it does."""

    words: tuple[str, str]
    purpose: str


STAGES = {
    "prepare": Stage(("features", "prepare"), "check the photos and split them"),
    "cache": Stage(("features", "cache"), "run the backbone once on photos and augmented copies"),
    "search": Stage(("search", "run"), "train many classifier heads on the cached features"),
    "confirm": Stage(("search", "confirm"), "train the best heads again with other seeds"),
    "promote": Stage(("train", "promote"), "fine-tune the best head together with the backbone"),
    "export": Stage(("train", "export"), "write the model in every format, and check each"),
    "report": Stage(("reports", "build"), "show all of it on one page"),
}
"""The stages of `run` in order, by their key in the `--json` object. A title fits into 80 columns."""


def run_stages(checked: Run, file: Path, overrides: Sequence[str], output: Output) -> None:
    """Runs every stage, prints the summary, and outputs the `--json` object."""
    results: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    settings_ = ["--config", str(file), *(part for override in overrides for part in ("--set", override))]
    stages = {key: stage for key, stage in STAGES.items() if key != "confirm" or checked.search.confirm is not None}
    for workers in (checked.features.workers, checked.search.workers, checked.promotion_workers):
        check_devices(workers)
    check_choices(checked)
    for position, (key, (words, purpose)) in enumerate(stages.items(), start=1):
        log.rule(f"{position}/{len(stages)}  {' '.join(words)}: {purpose}", align="left")
        started = time.monotonic()
        results[key] = run_stage([*words, *settings_, "--json"])
        seconds[key] = time.monotonic() - started
    exported = ExportResult.model_validate(results["export"])
    output.console.print(exported.verdict.text)
    output.console.print(_summary(checked, results, seconds))
    output.console.print(f"\nreport  {results['report']['report']}\nexport  {exported.folder}")
    output.result({"verdict": results["export"]["verdict"], **dict.fromkeys(STAGES), **results, "seconds": seconds})


def _summary(checked: Run, results: dict[str, Any], seconds: dict[str, float]) -> Table:
    """One row per stage: its result and how long it took."""
    prepared, cached, searched = results["prepare"], results["cache"], results["search"]
    counts = ", ".join(f"{count} {state}" for state, count in searched["trials"].items())
    ranked = [leader.value for leader in leaders(checked)]
    objective = checked.search.objective
    rows = {
        "prepare": f"{prepared['images']} photos of {prepared['classes']} classes",
        "cache": _cached([cached, *cached.get("others", {}).values()], prepared["images"]),
        "search": f"{counts}; {objective} {ranked[0]:.4f} for the best head, {ranked[-1]:.4f} for the worst completed trial",
        **({"confirm": _confirmed(results["confirm"], objective)} if "confirm" in results else {}),
        "promote": "\n".join(
            _promoted(each, is_informative(prepared["classes"]))
            for each in PromoteResult.model_validate(results["promote"]).promotions
        ),
        "export": f"trial {results['export']['trial']}: {', '.join(results['export']['formats'])}",
        "report": f"{len(results['report']['sections'])} sections",
    }
    table = Table("stage", "result", "seconds", title=checked.name)
    for stage, text in rows.items():
        table.add_row(stage, text, f"{seconds[stage]:.0f}")
    frequent = dataset_facts(load_index(checked)).most_frequent
    table.caption = (
        f"Values on validation photos are {OPTIMISTIC}. Always predicting the most frequent class would be right "
        f"for {frequent:.4f} of the test photos."
    )
    return table


def _cached(built: Sequence[dict[str, Any]], images: int) -> str:
    """One line about the caches of all policies, which share the records of the clean photos."""
    copies = ", ".join(
        f"{counted(one['copies'], 'augmented copy', 'augmented copies')} of {one['policy']}" for one in built
    )
    records = images + sum(one["records"] - images for one in built)
    size = records * built[0]["bytes"] / built[0]["records"]
    return f"{records} feature vectors, {copies}, {size / 1e6:.1f} MB"


def _promoted(promotion: PromotionSummary, top5: bool) -> str:
    """One line about a promotion. Omits test accuracies if the test photos were not evaluated; `top5` adds top-5 accuracy."""
    tuned = promotion.tuned
    before = "" if promotion.stage == "frozen" else f"{promotion.frozen.val_accuracy:.4f} frozen, "
    text = f"trial {promotion.trial}: val {before}{tuned.val_accuracy:.4f} {promotion.stage}"
    if tuned.test_accuracy is None:
        return text
    five = f", top-5 {tuned.test_top5_accuracy:.4f}" if top5 else ""
    return f"{text}; test {tuned.test_accuracy:.4f}{five}"


def _confirmed(result: dict[str, Any], objective: str) -> str:
    """One line about the best confirmed leader."""
    best, *others = map(Confirmed.model_validate, result["confirmed"])
    spread = show_interval(best, "{:.4f}".format)
    how = f"over {len(best.seeds)} seeds (95 % interval {spread})" if best.interval else f"({spread})"
    return f"trial {best.number} of {1 + len(others)} leaders: {objective} {best.mean:.4f} {how}"
