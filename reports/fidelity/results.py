"""What the fidelity study found: from the accuracies of its cells to tables of plain numbers, `fidelity/results.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.runtime.atomic import write_text
from features.runtime.errors import HeadhuntError
from reports.config import FidelityConfig
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

VERSION = 3
"""Of results.json: another one has other keys."""

TABLES = {
    *("date", "configurations", "seeds", "epochs", "tolerance_points", "failed", "own", "views", "closing"),
    *("augmentation", "ranking", "single_seed", "hyperparameters", "cost"),
}
"""Its keys besides `version`."""

FRESH, FINE_TUNED = "fresh", "fine_tuned"
"""What a ranking is compared with: a fresh view in every epoch, or the networks after fine-tuning."""

ALL, BETTER = "all", "better_half"
"""Among which configurations: who searches chooses among good ones, and to order those is harder."""

NEEDED = 3
"""Configurations below which there is no ranking to speak of."""

LEVELS = 4
"""A numeric hyperparameter with more different values than this is cut at its median."""

TRIALS = (1, 10, 100, 1000)
"""Numbers of trials whose cost is told."""


class Measured(NamedTuple):
    """What was measured of the configurations whose trainings all went to their end.

    `accuracy` has, for each cell, the best validation accuracy of (configurations, seeds), `loss` the validation loss at these
    epochs; `truth` the accuracies of the full runs, with other seeds; `first_epoch` and `first_loss` are the own cell's after one
    epoch; `tuned` is the fine-tuned validation accuracy by trial. `failed` says why others are not there, by trial: the loss of a
    training was not finite, in the search, in a cell or in fine-tuning.
    """

    leaders: Sequence[Leader]
    accuracy: Mapping[Cell, Values]
    loss: Mapping[Cell, Values]
    truth: Mapping[Cell, Values]
    first_epoch: Values
    first_loss: Values
    tuned: Mapping[int, float]
    failed: Mapping[int, str]


def summarise(plan: Plan, settings: FidelityConfig, measured: Measured, date: str) -> dict[str, Any]:
    """All tables but the cost, as they are in results.json."""
    accuracy, loss = measured.accuracy, measured.loss
    configurations, seeds = accuracy[plan.own].shape
    full = plan.full(plan.own)
    draws = draw(configurations, seeds, settings.resamples)
    clean = next(cell for cell in plan.cells if cell.copies == 0)
    fresh = measured.truth[full]
    return {
        "version": VERSION,
        "date": date,
        "configurations": configurations,
        "seeds": seeds,
        "epochs": plan.epochs,
        "tolerance_points": settings.tolerance_points,
        "failed": [{"trial": trial, "reason": reason} for trial, reason in sorted(measured.failed.items())],
        "own": _cell(plan.own),
        "views": [_views(plan, cell, measured, draws) for cell in plan.cells],
        "closing": _closings(plan, measured, draws, settings.tolerance_points),
        "augmentation": [
            {
                "policy": cell.policy,
                "clean_share": cell.clean_share,
                "points": _numbers(gap(accuracy[clean], measured.truth[cell], draws)),
            }
            for cell in plan.cells
            if cell.is_fresh
        ],
        "ranking": _rankings(plan, measured, draws, settings.resamples),
        "single_seed": _ranking(compare_single(accuracy[full], loss[full], fresh, draws)),
        "hyperparameters": _effects(plan, measured, settings.resamples),
        "trials": [
            {
                "trial": leader.number,
                "params": leader.params,
                "own": float(accuracy[plan.own][row].mean()),
                "fresh": float(fresh[row].mean()),
                "tuned": measured.tuned.get(leader.number),
            }
            for row, leader in enumerate(measured.leaders)
        ],
    }


def certificate_of(plan: Plan, results: Mapping[str, Any], finetune: str) -> Certificate:
    """The certificate of the search's own views."""
    own = {row["against"]: row for row in results["ranking"] if (row["what"], row["among"]) == ("own", ALL)}
    agreements = {
        against: Agreement(
            configurations=row["configurations"],
            spearman=row["spearman"]["value"],
            low=row["spearman"]["low"],
            high=row["spearman"]["high"],
            kendall=row["kendall"]["value"],
            regret_points=row["top1_regret_points"]["value"],
        )
        for against, row in own.items()
        if None not in row["spearman"].values()
    }
    if FRESH not in agreements:
        raise HeadhuntError(
            "all configurations have the same accuracy, so there is no ranking to compare. Search a space in which they differ."
        )
    return Certificate(
        date=results["date"],
        seeds=results["seeds"],
        frozen=agreements[FRESH],
        tuned=agreements.get(FINE_TUNED),
        finetune=finetune,
    )


def cost_table(cost: Cost, rates: Rates) -> dict[str, Any]:
    """The cost as it is in results.json."""
    return {
        **cost._asdict(),
        "rates": rates._asdict(),
        "break_even_trials": cost.break_even,
        "table": [
            dict(zip(("trials", "network", "seed_cache", "own_cache"), (trials, *cost.seconds(trials)), strict=True))
            for trials in TRIALS
        ],
    }


def results_file(workdir: Path) -> Path:
    """`fidelity/results.json` of a run."""
    return workdir / "fidelity" / "results.json"


def write_results(workdir: Path, results: Mapping[str, Any]) -> None:
    """Writes them, atomically."""
    write_text(results_file(workdir), json.dumps(results, indent=1, allow_nan=False) + "\n")


def load_results(workdir: Path) -> dict[str, Any] | None:
    """The results of a run's fidelity study; None where there are none. HeadhuntError for a file that cannot be read."""
    path = results_file(workdir)
    again = "`headhunt reports fidelity` writes it anew."
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise HeadhuntError(f"{path} cannot be read: {error}. {again}") from error
    if found.get("version") != VERSION:
        raise HeadhuntError(f"{path} was written by another version of headhunt. {again}")
    if lacking := TABLES - set(found):
        raise HeadhuntError(f"{path} is damaged: it has no {', '.join(sorted(lacking))}. {again}")
    return found


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "policy": cell.policy if cell.copies else None,
        "copies": cell.copies,
        "fresh": cell.is_fresh,
        "draw": cell.draw,
        "clean_share": cell.clean_share,
    }


def _views(plan: Plan, cell: Cell, measured: Measured, draws: Draws) -> dict[str, Any]:
    means = measured.accuracy[cell].mean(1)
    return {
        **_cell(cell),
        "mean_accuracy": float(means.mean()),
        "best_accuracy": float(means.max()),
        "gap_points": _numbers(gap(measured.accuracy[cell], measured.truth[plan.full(cell)], draws)),
    }


def _closings(plan: Plan, measured: Measured, draws: Draws, tolerance: float) -> list[dict[str, Any]]:
    """For each way to draw views, from how many copies on it is as good as a fresh view in every epoch."""
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
        found.append({"policy": policy, "draw": drawn, "clean_share": share, **closed._asdict()})
    return found


def _rankings(plan: Plan, measured: Measured, draws: Draws, resamples: int) -> list[dict[str, Any]]:
    """Every cell's ranking, and those of cheaper ways, against fresh views and against fine-tuning."""
    asked: list[tuple[str, Cell, Values, Values]] = [
        (what, cell, measured.accuracy[cell], measured.loss[cell])
        for what, cell in (
            ("own", plan.own),
            ("half_epochs", plan.half_epochs),
            ("half_data", plan.half_data),
            *(("views", cell) for cell in plan.cells),
        )
    ]
    asked.insert(1, ("one_epoch", plan.own, measured.first_epoch, measured.first_loss))
    rows = np.array(
        [place for place, leader in enumerate(measured.leaders) if leader.number in measured.tuned], np.int64
    )
    tuned = np.array([measured.tuned[measured.leaders[row].number] for row in rows])
    found = []
    for what, cell, values, losses in asked:
        judge = compare if what == "views" else compare_single  # as a search has it: one training of each
        sides = {FRESH: (values, losses, measured.truth[plan.full(cell)])}
        if len(rows) >= NEEDED:
            sides[FINE_TUNED] = (values[rows], losses[rows], tuned)
        for against, (ours, our_losses, truth) in sides.items():
            better = better_half(truth)
            among = {
                ALL: np.arange(len(truth)),
                **({} if what == "views" or len(better) < NEEDED else {BETTER: better}),
            }
            for which, places in among.items():
                drawn = draw(len(places), draws.of_seeds, resamples)
                ranking = _ranking(judge(ours[places], our_losses[places], truth[places], drawn))
                shown = _cell(cell._replace(epochs=plan.epochs))
                found.append({"what": what, **shown, "against": against, "among": which, **ranking})
    return found


def _effects(plan: Plan, measured: Measured, resamples: int) -> list[dict[str, Any]]:
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
    """The values of a hyperparameter and who has each; a range with many values is cut at its median."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    levels = sorted(set(values), key=lambda value: value if numeric else str(value))
    if numeric and len(levels) > LEVELS:
        middle = float(np.median(values))
        return [(f"above {middle:.3g}", np.array([value > middle for value in values]))]
    told = levels[1:] if len(levels) == 2 else levels  # with two values, one is the other's opposite
    return [(str(level), np.array([value == level for value in values])) for level in told]


def _effect(found: Effect) -> dict[str, Any]:
    estimates = {name: _numbers(getattr(found, name)) for name in ("cached", "truth", "difference")}
    return {
        "parameter": found.parameter,
        "value": found.value,
        "configurations": found.configurations,
        **estimates,
        "transfers": found.verdict,
    }


def _ranking(found: Ranking) -> dict[str, Any]:
    return {
        "configurations": found.configurations,
        "spearman": _numbers(found.spearman),
        "kendall": _numbers(found.kendall),
        "top1_regret_points": _numbers(found.top1_regret),
        "top3_regret_points": _numbers(found.top3_regret),
    }


def _numbers(estimate: Estimate) -> dict[str, float | None]:
    return {name: _number(value) for name, value in estimate._asdict().items()}


def _number(value: float) -> float | None:
    """A number as JSON has it: none that is not finite."""
    return float(value) if math.isfinite(value) else None
