"""Judgements: those of Optuna's pruners, and the same however often and however late they are asked for."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from search.pruners import is_pruned, make_pruner, rungs

optuna.logging.set_verbosity(optuna.logging.WARNING)

EPOCHS = 27
PRUNERS = ["median", "successive_halving", "hyperband"]


def new_study(pruner: str, direction: str) -> optuna.Study:
    return optuna.create_study(study_name="judged", direction=direction, pruner=make_pruner(pruner, EPOCHS))


def value(number: int, epoch: int) -> float:
    """A level for each trial and noise for each epoch; coarse, so that there are ties."""
    level = np.random.default_rng(number).integers(0, 12)
    return float(level + np.random.default_rng([number, epoch]).integers(0, 3))


def judge_generations(study: optuna.Study, pruner: str, optunas: bool) -> list[tuple[int, int]]:
    """Six generations of eight, judged rung by rung; gives (number, rung) of every trial that was pruned."""
    pruned = []
    for _ in range(6):
        alive = [study.ask() for _ in range(8)]
        judged = {}
        reported = 0
        for until in rungs(pruner, EPOCHS)[:-1]:
            for trial in list(alive):
                for epoch in range(reported + 1, until + 1):
                    trial.report(value(trial.number, epoch), epoch)
                if (
                    trial.should_prune()
                    if optunas
                    else is_pruned(study, study.get_trials(deepcopy=False), trial.number, until)
                ):
                    pruned.append((trial.number, until))
                    judged[trial.number] = until
                    alive.remove(trial)
            reported = until
        for trial in alive:
            study.tell(trial.number, value(trial.number, EPOCHS))
        for number in judged:
            study.tell(number, state=optuna.trial.TrialState.PRUNED)
    return pruned


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_the_judgements_are_optunas(pruner: str, direction: str) -> None:
    ours = judge_generations(new_study(pruner, direction), pruner, optunas=False)
    assert ours == judge_generations(new_study(pruner, direction), pruner, optunas=True)
    assert 3 < len(ours) < 48


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_judgement_stands_when_later_values_are_known(pruner: str) -> None:
    """As a driver finds it that goes on: its trials have values of later rungs, and so have the trials after them."""
    study = new_study(pruner, "maximize")
    judge_generations(study, pruner, optunas=False)
    left = [study.ask() for _ in range(8)]
    first, second = rungs(pruner, EPOCHS)[:2]
    for trial in left:
        for epoch in range(1, first + 1):
            trial.report(value(trial.number, epoch), epoch)
    before = [is_pruned(study, study.get_trials(deepcopy=False), trial.number, first) for trial in left]
    for trial in left:
        for epoch in range(first + 1, second + 1):
            trial.report(value(trial.number, epoch), epoch)
    assert [is_pruned(study, study.get_trials(deepcopy=False), trial.number, first) for trial in left] == before


@pytest.mark.parametrize(
    ("pruner", "epochs", "expected"),
    [
        ("none", 30, [30]),
        ("median", 30, [4, 8, 12, 16, 20, 24, 28, 30]),
        ("median", 3, [1, 2, 3]),
        ("successive_halving", 30, [1, 3, 9, 27, 30]),
        ("hyperband", 27, [1, 3, 9, 27]),
        ("hyperband", 1, [1]),
    ],
)
def test_rungs(pruner: str, epochs: int, expected: list[int]) -> None:
    assert rungs(pruner, epochs) == expected
