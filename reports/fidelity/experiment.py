"""`headhunt reports fidelity`: runs the missing parts of the fidelity study and reports its results.

All results are saved as soon as they exist: cache shards, trials, each training by its key, every epoch of a fine-tuning, times.
So the command can be stopped at any moment and rerun.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import typer
from pydantic import BaseModel, PlainSerializer

from features.cache.feature_cache import cache_for
from features.runtime.atomic import make_folder, only_process, write_text
from features.runtime.commands.stages import run_stage
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import log, relative
from features.runtime.workers.executors import in_own_process
from reports.build import build
from reports.config import FidelityConfig, Run
from reports.fidelity.artifact import FidelityResults, load_results, write_results
from reports.fidelity.cost import Cost, Rates, cost_of, measure_rates, time_own_trials
from reports.fidelity.plan import Cell, Plan, lay_out, make_plan
from reports.fidelity.results import Measured, certificate_of, cost_results, summarise
from reports.fidelity.statistics import Values
from search.certificate import write_certificate
from search.confirm.rerun import confirmation_seeds
from search.confirm.seed_runs import SeedRun
from search.confirm.trainings import Training, train_all, training
from search.driver.identity import check_identity
from search.driver.storage import storage_faults
from search.engine import environment
from search.leaderboard import Leader, leaders, load_study
from search.objectives import open_objective
from search.searched_views import with_stored_views
from search.trial import EpochMetrics
from train.promotion.artifact import PromoteResult

if TYPE_CHECKING:
    import optuna

NEEDED = 4
"""Minimum number of configurations for a fidelity study."""


def fidelity(run: Run) -> dict[str, Any]:
    """Runs the fidelity study of a run and builds the page; returns the `--json` object of `reports fidelity`.

    Raises UsageError if there is no study to certify, if it was made with other settings, if settings are incompatible, and while
    another process runs the fidelity study.
    """
    settings, plan = run.reports.fidelity, make_plan(run)
    _check_study(run)
    lock = make_folder(plan.run.workdir) / ".fidelity.lock"
    with only_process(lock, f"another fidelity study of {run.name!r} is running"):
        lay_out(plan, run)
        file = ["--config", str(plan.file), "--json"]
        _headline(1, "build the cache with a fresh view for every epoch")
        run_stage(["features", "cache", *file])
        _headline(2, f"train {settings.configurations} configurations, spread over the search space")
        run_stage(["search", "run", *file])
        chosen, failed = _configurations(plan, settings)
        _headline(3, f"train each in {len(plan.cells) + 2} ways, with {settings.seeds} seeds")
        trained = _train(plan, settings, chosen)
        failed |= trained.failed
        chosen = [leader for leader in chosen if leader.number not in failed]
        _check_number(chosen, settings, failed)
        _headline(4, "fine-tune good, average and bad ones")
        tuned, given_up = _fine_tune(plan, settings, chosen, file)
        _headline(5, "measure the cost of each way")
        cost, rates = _cost(plan, settings, chosen, run)
        measured = Measured(chosen, *trained[:-1], tuned, failed | given_up)
        results = _dated(run, summarise(plan, settings, measured, cost_results(cost, rates), date.today().isoformat()))
        write_results(run.workdir, results)
        certificate = certificate_of(results, plan.run.train.finetune.digest)
        with storage_faults(run.search.storage, run.workdir):
            write_certificate(_check_study(run), certificate)
    page = build(run)["report"]
    return {"page": page, **results.model_dump(), "certificate": certificate.model_dump(mode="json")}


def _check_study(run: Run) -> optuna.Study:
    """The run's study; UsageError if there is none, or if it was made with other settings than those to certify."""
    study = load_study(run)
    run = with_stored_views(run, study)
    check_identity(study, open_objective(run))
    return study


def _dated(run: Run, results: FidelityResults) -> FidelityResults:
    """The results, dated with the day on which the same results were first obtained."""
    try:
        before = load_results(run.workdir)
    except HeadhuntError:
        before = None
    if before is not None and before == results.model_copy(update={"date": before.date}):
        return before
    return results


def _configurations(plan: Plan, settings: FidelityConfig) -> tuple[list[Leader], dict[int, str]]:
    """The configurations whose trials completed, sorted by number, and the reasons why others did not, by number."""
    trials = load_study(plan.run).get_trials(deepcopy=False)[: settings.configurations]
    reasons = {
        trial.number: f"in the search: {trial.user_attrs.get('reason', 'unknown')}"
        for trial in trials
        if trial.state.name != "COMPLETE"
    }
    there = {trial.number for trial in trials} - set(reasons)
    if not there:
        _check_number([], settings, reasons)
    chosen = sorted(
        (leader for leader in leaders(plan.run) if leader.number in there), key=lambda leader: leader.number
    )
    _check_number(chosen, settings, reasons)
    return chosen, reasons


def _check_number(chosen: Sequence[Leader], settings: FidelityConfig, failed: Mapping[int, str]) -> None:
    if len(chosen) < NEEDED:
        first = f" Trial {min(failed)} failed {failed[min(failed)]}." if failed else ""
        raise UsageError(
            f"only {len(chosen)} of the {settings.configurations} configurations have completed, but a ranking needs at least "
            f"{NEEDED}.{first} Raise reports.fidelity.configurations, or lower the learning rates in the search space."
        )


def _headline(number: int, what: str) -> None:
    log.rule(f"fidelity {number}/5  {what}", align="left")


class Trained(NamedTuple):
    """The results, as in Measured, of the configurations whose trainings all completed, and why the others failed, by trial."""

    accuracy: dict[Cell, Values]
    loss: dict[Cell, Values]
    truth: dict[Cell, Values]
    first_epoch: Values
    first_loss: Values
    failed: dict[int, str]


def _train(plan: Plan, settings: FidelityConfig, chosen: Sequence[Leader]) -> Trained:
    """Runs the missing trainings in a separate process, because they need their own environment variables."""
    policies = list(dict.fromkeys(cell.policy for cell in plan.cells))
    space = plan.run.search.space.model_copy(update={"views": {"policy": policies, "copies": [0, plan.epochs]}})
    search = plan.run.search.model_copy(update={"space": space})
    run = plan.run.model_copy(update={"search": search})
    objective = open_objective(run)
    drawn = confirmation_seeds(run.search.seed, 2 * settings.seeds)
    seeds, true_seeds = drawn[::2], drawn[1::2]  # interleaved, so that raising `seeds` keeps the earlier ones

    def one(cell: Cell, leader: Leader, seed: int) -> Training:
        changed = {"seed": seed, "views": cell.views, "epochs": cell.epochs}
        config = leader.config.model_copy(update=changed)
        return training(objective, leader.number, config, cell.train_share)

    def all_of(cell: Cell, seeds: Sequence[int]) -> list[list[Training]]:
        return [[one(cell, leader, seed) for seed in seeds] for leader in chosen]

    wanted = {cell: all_of(cell, seeds) for cell in dict.fromkeys([*plan.cells, plan.half_epochs, plan.half_data])}
    true = {cell: all_of(cell, true_seeds) for cell in plan.cells if cell.is_fresh}
    asked = [each for cells in (wanted, true) for rows in cells.values() for row in rows for each in row]
    records = in_own_process(objective.environment, train_all, objective, asked)
    failed = {each.trial: f"in a training: {each.failure}" for each in records.values() if each.failure}
    kept = [row for row, leader in enumerate(chosen) if leader.number not in failed]

    def table(rows: list[list[Training]], number: Callable[[SeedRun], float | None]) -> Values:
        return np.array([[number(records[each.key]) or 0.0 for each in rows[row]] for row in kept])

    def after_one_epoch(name: str) -> Values:
        return table(wanted[plan.own], lambda record: record.curves[0][EpochMetrics._fields.index(name)])

    return Trained(
        {cell: table(rows, lambda record: record.value) for cell, rows in wanted.items()},
        {cell: table(rows, lambda record: record.val_loss) for cell, rows in wanted.items()},
        {cell: table(rows, lambda record: record.value) for cell, rows in true.items()},
        after_one_epoch("val_accuracy"),
        after_one_epoch("val_loss"),
        failed,
    )


def _fine_tune(
    plan: Plan, settings: FidelityConfig, chosen: Sequence[Leader], file: list[str]
) -> tuple[dict[int, float], dict[int, str]]:
    """The validation accuracies after fine-tuning, by trial, of a sample spread evenly over the search's own ranking; and the
    reasons for failures. A failure does not stop the study: the sample includes bad configurations on purpose."""
    if not settings.finetuned:
        log.print("Skipped: reports.fidelity.finetuned is 0.")
        return {}, {}
    there = {leader.number for leader in chosen}
    ranked = [leader.number for leader in leaders(plan.run) if leader.number in there]
    places = np.unique(np.linspace(0, len(ranked) - 1, min(settings.finetuned, len(ranked))).round().astype(int))
    sample = [ranked[place] for place in places]
    failed: set[int] = set()

    def promote(*numbers: int) -> dict[int, float]:
        """Promotes trials with the plan's recipe; promotions with other recipes may exist beside these."""
        options = (part for number in numbers for part in ("--trial", str(number)))
        result = PromoteResult.model_validate(run_stage(["train", "promote", *options, *file]))
        return {each.trial: each.tuned.val_accuracy for each in result.promotions}

    tuned: dict[int, float] = {}
    try:
        tuned = promote(*sample)
    except typer.Exit as ended:
        if ended.exit_code != 1:
            raise
        for number in sample:  # one at a time, to find which ones failed
            try:
                tuned |= promote(number)
            except typer.Exit as again:
                if again.exit_code != 1:
                    raise
                failed.add(number)
        if len(failed) == len(sample):
            raise
    return tuned, dict.fromkeys(sorted(failed), "in fine-tuning")


def _cost(plan: Plan, settings: FidelityConfig, chosen: Sequence[Leader], run: Run) -> tuple[Cost, Rates]:
    """The cost, measured once and stored in fidelity/cost.json."""
    path = plan.run.workdir / "cost.json"
    middle = chosen[len(chosen) // 2]
    images = cache_for(run).manifest.splits
    made_from = [
        *(settings.cost_photos, plan.epochs, len(chosen), middle.number, plan.run.backend, images, list(Rates._fields)),
        *(getattr(plan.run, part).workers.model_dump(mode="json") for part in ("features", "search")),
        *(platform.node(), os.cpu_count()),
    ]
    known = _known_cost(path)
    if known is None or known.made_from != made_from:
        cores = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC"), str(os.cpu_count() or 1))
        quiet = {"PYTHONWARNINGS": "ignore"}
        variables = {"KERAS_BACKEND": plan.run.backend, **cores, **quiet}
        rates = in_own_process(variables, measure_rates, plan.run, middle, settings.cost_photos)
        own = in_own_process({**environment(plan.run), **quiet}, time_own_trials, plan.run, list(chosen))
        known = KnownCost(made_from=made_from, rates=rates, own=own)
        write_text(path, json.dumps(known.model_dump(), indent=1) + "\n")
    else:
        log.print(f"Already measured: {relative(path)}")
    rates = known.rates
    return cost_of(rates, known.own, len(chosen), images, plan.epochs, plan.own.copies), rates


class KnownCost(BaseModel):
    """fidelity/cost.json: the measurements, and everything they depend on."""

    made_from: list[object]
    rates: Annotated[Rates, PlainSerializer(Rates._asdict)]
    own: tuple[float, float]


def _known_cost(path: Path) -> KnownCost | None:
    try:
        return KnownCost.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None
