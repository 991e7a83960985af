"""`headhunt reports fidelity`: runs what is missing of the fidelity study, and says what it found.

Everything is on disk as soon as it is there: shards of the cache, trials of the study, each training by its key, every epoch of a
fine-tuning, the times. So the command may be stopped at any moment, and run again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from features.atomic import only_process, write_text
from features.cache import cache_for
from features.command import log, relative
from features.errors import UsageError
from features.executors import in_own_process
from features.stages import run_stage
from reports.build import build
from reports.config import FidelityConfig, Run
from reports.fidelity.cost import Cost, Rates, cost_of, measure_rates, time_own_trials
from reports.fidelity.plan import Cell, Plan, lay_out, make_plan
from reports.fidelity.results import Measured, certificate_of, cost_table, summarise, write_results
from search.certificate import write_certificate
from search.confirm.rerun import confirmation_seeds
from search.confirm.seed_runs import SeedRun
from search.confirm.trainings import Training, train_all, training
from search.leaderboard import Leader, leaders, load_study
from search.population.sources import Caches
from search.study import environment
from train.promotion.promote import load_metrics

NEEDED = 4
"""Configurations below which there is no ranking to speak of."""

VAL_ACCURACY = 4
"""Its place among the numbers of an epoch."""


def fidelity(run: Run) -> dict[str, Any]:
    """Makes the fidelity study of a run and its page; returns the `--json` object of `reports fidelity`.

    Raises UsageError where there is no study to certify, for settings that do not go together, and while another process runs it.
    """
    settings = run.reports.fidelity
    study = load_study(run)
    plan = make_plan(run)
    lay_out(plan, run)
    with only_process(plan.run.workdir / ".fidelity.lock", f"another fidelity study of {run.name!r} is running"):
        os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", **environment(plan.run)})
        file = ["--config", str(plan.file), "--json"]
        _headline(1, "the cache: a fresh view for every epoch")
        run_stage(["features", "cache", *file])
        _headline(2, f"{settings.configurations} configurations, spread over the search space")
        run_stage(["search", "run", *file])
        chosen = sorted(leaders(plan.run), key=lambda leader: leader.number)
        if len(chosen) < NEEDED:
            raise UsageError(
                f"only {len(chosen)} of the {settings.configurations} configurations ran to their end, and a ranking needs "
                f"at least {NEEDED}. Raise reports.fidelity.configurations, or lower the learning rates in the search space."
            )
        _headline(3, f"each of them in {len(plan.cells) + 2} ways, with {settings.seeds} seeds")
        accuracy, first_epoch, failed = _train(plan, settings, chosen)
        _headline(4, "fine-tuning good, middling and bad ones")
        tuned = _fine_tune(plan, settings, chosen, file)
        _headline(5, "what each way costs")
        cost, rates = _cost(plan, settings, chosen, run)
        measured = Measured(chosen, accuracy, first_epoch, tuned, failed)
        results = summarise(plan, settings, measured, date.today().isoformat())
        results["cost"] = cost_table(cost, rates)
        write_results(run.workdir, results)
        certificate = certificate_of(plan, results, plan.run.train.finetune.digest)
        write_certificate(study, certificate)
    page = build(run)["report"]
    return {"page": page, **results, "certificate": certificate.model_dump(mode="json")}


def _headline(number: int, what: str) -> None:
    log.rule(f"fidelity {number}/5  {what}", align="left")


def _train(
    plan: Plan, settings: FidelityConfig, chosen: Sequence[Leader]
) -> tuple[dict[Cell, np.ndarray[Any, Any]], np.ndarray[Any, Any], int]:
    """Best validation accuracies by cell, (configurations, seeds); the own cell's after one epoch; how many trainings failed."""
    policies = list(dict.fromkeys(cell.policy for cell in plan.cells))
    space = plan.run.search.space.model_copy(update={"views": {"policy": policies, "copies": [0, plan.epochs]}})
    search = plan.run.search.model_copy(update={"space": space})
    run = plan.run.model_copy(update={"search": search})
    caches = Caches(run)
    seeds = confirmation_seeds(run.search.seed, settings.seeds)

    def one(cell: Cell, leader: Leader, seed: int) -> Training:
        changed = {"seed": seed, "views": cell.views, "epochs": cell.epochs}
        config = leader.config.model_copy(update=changed)
        return training(run, caches, leader.number, config, train_share=cell.train_share)

    every = dict.fromkeys([*plan.cells, plan.half_epochs, plan.half_data])
    wanted = {cell: [[one(cell, leader, seed) for seed in seeds] for leader in chosen] for cell in every}
    records = train_all(run, caches, [each for rows in wanted.values() for row in rows for each in row])
    accuracy = {
        cell: np.array([[records[each.key].value or 0.0 for each in row] for row in rows])
        for cell, rows in wanted.items()
    }
    first = np.array([[_after_one_epoch(records[each.key]) for each in row] for row in wanted[plan.own]])
    return accuracy, first, sum(record.failure is not None for record in records.values())


def _after_one_epoch(record: SeedRun) -> float:
    return (record.curves[0][VAL_ACCURACY] or 0.0) if record.curves else 0.0


def _fine_tune(plan: Plan, settings: FidelityConfig, chosen: Sequence[Leader], file: list[str]) -> dict[int, float]:
    """The validation accuracy after fine-tuning, by trial, of a sample that is spread evenly over the search's own ranking."""
    if not settings.finetuned:
        log.print("None: reports.fidelity.finetuned is 0.")
        return {}
    ranked = sorted(chosen, key=lambda leader: (-leader.value, leader.number))
    places = np.unique(np.linspace(0, len(ranked) - 1, min(settings.finetuned, len(ranked))).round().astype(int))
    sample = [ranked[place].number for place in places]
    run_stage(["train", "promote", *(part for number in sample for part in ("--trial", str(number))), *file])
    return {number: float(load_metrics(plan.run, number)["tuned"]["val"]["accuracy"]) for number in sample}


def _cost(plan: Plan, settings: FidelityConfig, chosen: Sequence[Leader], run: Run) -> tuple[Cost, Rates]:
    """Measured once: the times stay in fidelity/cost.json."""
    path = plan.run.workdir / "cost.json"
    middle = chosen[len(chosen) // 2]
    made_from = [settings.cost_photos, plan.epochs, len(chosen), middle.number, plan.run.backend]
    known = _known_cost(path)
    if known is None or known["made_from"] != made_from:
        rates = in_own_process(
            {"KERAS_BACKEND": plan.run.backend},
            measure_rates, plan.run, middle, settings.cost_photos,
        )  # fmt: skip
        known = {
            "made_from": made_from,
            "rates": rates._asdict(),
            "own_trial": time_own_trials(plan.run, list(chosen)),
        }
        write_text(path, json.dumps(known, indent=1) + "\n")
    else:
        log.print(f"Measured already: {relative(path)}")
    rates = Rates(**known["rates"])
    images = cache_for(run).manifest.splits
    return cost_of(rates, known["own_trial"], len(chosen), images, plan.epochs, plan.own.copies), rates


def _known_cost(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (FileNotFoundError, ValueError):
        return None
