"""The results of the fidelity study: from the accuracies of its cells to the tables of results.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.runtime.errors import HeadhuntError
from reports.config import FidelityConfig
from reports.fidelity.artifact import (
    Against,
    Among,
    Closing,
    CostOfTrials,
    CostResults,
    FailedTrial,
    FidelityResults,
    HyperparameterEffect,
    Interval,
    MeasuredWay,
    RankingAgreement,
    RankingRow,
    TrialAccuracies,
    Way,
    What,
    Worth,
)
from reports.fidelity.cost import Cost, Rates
from reports.fidelity.plan import Cell, Plan
from reports.fidelity.statistics import (
    Draws,
    Effect,
    Estimate,
    Ranking,
    Values,
    better_half,
    closing,
    compare,
    compare_single,
    draw,
    effect,
    gap,
)
from search.certificate import Agreement, Certificate
from search.leaderboard import Leader

NEEDED = 3
"""Minimum number of configurations for a ranking."""

LEVELS = 4
"""A numeric hyperparameter with more distinct values than this is split at its median."""

TRIALS = (1, 10, 100, 1000)
"""Numbers of trials whose cost is reported."""


class Measured(NamedTuple):
    """The measurements of the configurations whose trainings all completed.

    For each cell, `accuracy` is the best validation accuracy (configurations, seeds), `loss` the validation loss at these epochs,
    and `truth` the accuracies of the full runs, with other seeds. `first_epoch` and `first_loss` are those of the search's own
    cell after one epoch; `tuned` is the fine-tuned validation accuracy by trial. `failed` has the reasons for missing results by
    trial: a trial or training failed (its loss was not finite), in the search, in a cell or in fine-tuning.
    """

    leaders: Sequence[Leader]
    accuracy: Mapping[Cell, Values]
    loss: Mapping[Cell, Values]
    truth: Mapping[Cell, Values]
    first_epoch: Values
    first_loss: Values
    tuned: Mapping[int, float]
    failed: Mapping[int, str]


def summarise(
    plan: Plan, settings: FidelityConfig, measured: Measured, cost: CostResults, date: str
) -> FidelityResults:
    """All tables of results.json."""
    accuracy, loss = measured.accuracy, measured.loss
    configurations, seeds = accuracy[plan.own].shape
    full = plan.full(plan.own)
    draws = draw(configurations, seeds, settings.resamples)
    clean = next(cell for cell in plan.cells if cell.copies == 0)
    fresh = measured.truth[full]
    return FidelityResults(
        date=date,
        configurations=configurations,
        seeds=seeds,
        epochs=plan.epochs,
        tolerance_points=settings.tolerance_points,
        failed=[FailedTrial(trial=trial, reason=reason) for trial, reason in sorted(measured.failed.items())],
        own=_way(plan.own),
        views=[_measured_way(plan, cell, measured, draws) for cell in plan.cells],
        closing=_closings(plan, measured, draws, settings.tolerance_points),
        augmentation=[
            Worth(
                policy=cell.policy,
                clean_share=cell.clean_share,
                points=_interval(gap(accuracy[clean], measured.truth[cell], draws)),
            )
            for cell in plan.cells
            if cell.is_fresh
        ],
        ranking=_rankings(plan, measured, draws, settings.resamples),
        single_seed=_agreement(compare_single(accuracy[full], loss[full], fresh, draws)),
        hyperparameters=_effects(plan, measured, settings.resamples),
        trials=[
            TrialAccuracies(
                trial=leader.number,
                params=leader.params,
                own=float(accuracy[plan.own][row].mean()),
                fresh=float(fresh[row].mean()),
                tuned=measured.tuned.get(leader.number),
            )
            for row, leader in enumerate(measured.leaders)
        ],
        cost=cost,
    )


def certificate_of(results: FidelityResults, finetune: str) -> Certificate:
    """The certificate for the search's own views; HeadhuntError if all configurations have the same accuracy."""
    agreements: dict[Against, Agreement] = {}
    for against, row in results.by_own_views().items():
        found, kendall, regret = row.spearman, row.kendall.value, row.top1_regret_points.value
        if found.value is None or found.low is None or found.high is None or kendall is None or regret is None:
            continue
        agreements[against] = Agreement(
            configurations=row.configurations,
            spearman=found.value,
            low=found.low,
            high=found.high,
            kendall=kendall,
            regret_points=regret,
        )
    if "fresh" not in agreements:
        raise HeadhuntError(
            "all configurations have the same accuracy, so there is no ranking to compare. Use a search space in which they "
            "differ."
        )
    return Certificate(
        date=results.date,
        seeds=results.seeds,
        frozen=agreements["fresh"],
        tuned=agreements.get("fine_tuned"),
        finetune=finetune,
    )


def cost_results(cost: Cost, rates: Rates) -> CostResults:
    """The cost as stored in results.json."""
    table = []
    for trials in TRIALS:
        network, seed_cache, own_cache = cost.seconds(trials)
        table.append(CostOfTrials(trials=trials, network=network, seed_cache=seed_cache, own_cache=own_cache))
    return CostResults(**cost._asdict(), rates=rates, break_even_trials=cost.break_even, table=table)


def _way(cell: Cell) -> Way:
    return Way(
        policy=cell.policy if cell.copies else None,
        copies=cell.copies,
        fresh=cell.is_fresh,
        draw=cell.draw,
        clean_share=cell.clean_share,
    )


def _measured_way(plan: Plan, cell: Cell, measured: Measured, draws: Draws) -> MeasuredWay:
    means = measured.accuracy[cell].mean(1)
    return MeasuredWay(
        **dict(_way(cell)),
        mean_accuracy=float(means.mean()),
        best_accuracy=float(means.max()),
        gap_points=_interval(gap(measured.accuracy[cell], measured.truth[plan.full(cell)], draws)),
    )


def _closings(plan: Plan, measured: Measured, draws: Draws, tolerance: float) -> list[Closing]:
    """For each way to draw views, the number of copies from which it is as good as fresh views every epoch."""
    groups: dict[tuple[str, str, float], dict[int, Values]] = {}
    policies = list(dict.fromkeys(cell.policy for cell in plan.cells))
    draws_of = dict.fromkeys(cell.draw for cell in plan.cells if cell.copies > 1)
    for cell in plan.cells:
        if 0 < cell.copies < plan.epochs:
            for how in draws_of if cell.copies == 1 else [cell.draw]:
                groups.setdefault((cell.policy, how, cell.clean_share), {})[cell.copies] = measured.accuracy[cell]
    ordered = sorted(groups.items(), key=lambda one: (policies.index(one[0][0]), one[0][2], one[0][1]))
    found = []
    for (policy, drawn, share), by_copies in ordered:
        truth = measured.truth[plan.full(Cell(policy, 1, "rotation", share, plan.epochs))]
        closed = closing(sorted(by_copies.items()), truth, draws, tolerance)
        found.append(Closing(policy=policy, draw=drawn, clean_share=share, **closed._asdict()))
    return found


def _rankings(plan: Plan, measured: Measured, draws: Draws, resamples: int) -> list[RankingRow]:
    """The rankings of all cells and of the cheaper ways, compared with fresh views and with fine-tuning."""
    ways: list[tuple[What, Cell]] = [
        ("own", plan.own),
        ("half_epochs", plan.half_epochs),
        ("half_data", plan.half_data),
        *(("views", cell) for cell in plan.cells),
    ]
    asked = [(what, cell, measured.accuracy[cell], measured.loss[cell]) for what, cell in ways]
    asked.insert(1, ("one_epoch", plan.own, measured.first_epoch, measured.first_loss))
    rows = np.array(
        [place for place, leader in enumerate(measured.leaders) if leader.number in measured.tuned], np.int64
    )
    tuned = np.array([measured.tuned[measured.leaders[row].number] for row in rows])
    found = []
    for what, cell, values, losses in asked:
        judge = compare if what == "views" else compare_single  # one training per configuration, as in a search
        sides: dict[Against, tuple[Values, Values, Values]] = {
            "fresh": (values, losses, measured.truth[plan.full(cell)])
        }
        if len(rows) >= NEEDED:
            sides["fine_tuned"] = (values[rows], losses[rows], tuned)
        for against, (ours, our_losses, truth) in sides.items():
            better = better_half(truth)
            among: dict[Among, npt.NDArray[np.int64]] = {"all": np.arange(len(truth))}
            if what != "views" and len(better) >= NEEDED:
                among["better_half"] = better
            for which, places in among.items():
                drawn = draw(len(places), draws.of_seeds, resamples)
                agreement = _agreement(judge(ours[places], our_losses[places], truth[places], drawn))
                way = _way(cell._replace(epochs=plan.epochs))
                found.append(RankingRow(what=what, **dict(way), against=against, among=which, **dict(agreement)))
    return found


def _effects(plan: Plan, measured: Measured, resamples: int) -> list[HyperparameterEffect]:
    cached, fresh = measured.accuracy[plan.own], measured.truth[plan.full(plan.own)]
    found = []
    for name in dict.fromkeys(name for leader in measured.leaders for name in leader.params):
        there = [row for row, leader in enumerate(measured.leaders) if name in leader.params]
        values = [measured.leaders[row].params[name] for row in there]
        draws = draw(len(there), cached.shape[1], resamples)
        for shown, has in _levels(values):
            if min(has.sum(), (~has).sum()) >= 2:
                found.append(_effect(effect(name, shown, has, cached[there], fresh[there], draws)))
    return found


def _levels(values: Sequence[Any]) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """The values of a hyperparameter, and masks of the configurations that have each; many numeric values are split at the
    median."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    levels = sorted(set(values), key=lambda value: value if numeric else str(value))
    if numeric and len(levels) > LEVELS:
        middle = float(np.median(values))
        return [(f"above {middle:.3g}", np.array([value > middle for value in values]))]
    told = levels[1:] if len(levels) == 2 else levels  # the effects of two values are opposites
    return [(str(level), np.array([value == level for value in values])) for level in told]


def _effect(found: Effect) -> HyperparameterEffect:
    return HyperparameterEffect(
        parameter=found.parameter,
        value=found.value,
        configurations=found.configurations,
        cached=_interval(found.cached),
        truth=_interval(found.truth),
        difference=_interval(found.difference),
        transfers=found.verdict,
    )


def _agreement(found: Ranking) -> RankingAgreement:
    return RankingAgreement(
        configurations=found.configurations,
        spearman=_interval(found.spearman),
        kendall=_interval(found.kendall),
        top1_regret_points=_interval(found.top1_regret),
        top3_regret_points=_interval(found.top3_regret),
    )


def _interval(estimate: Estimate) -> Interval:
    """An estimate for JSON: None for numbers that are not finite."""
    value, low, high = (float(number) if math.isfinite(number) else None for number in estimate)
    return Interval(value=value, low=low, high=high)
