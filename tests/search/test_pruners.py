"""Pruning decisions: those of Optuna's pruners of the same names, and the same however often and however late they are made."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from search.pruners.choice import PrunerName, is_pruned, make_pruner
from search.pruners.halving import REDUCTION, STUDY, Hyperband

pytestmark = pytest.mark.unit

optuna.logging.set_verbosity(optuna.logging.WARNING)

EPOCHS = 27
OPTUNAS: dict[PrunerName, optuna.pruners.BasePruner] = {
    "median": optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3),
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
    "hyperband": optuna.pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=REDUCTION),
}
PRUNERS: list[PrunerName] = [*OPTUNAS, "quarters"]


def new_study(pruner: PrunerName, direction: str, name: str = STUDY) -> optuna.Study:
    return optuna.create_study(study_name=name, direction=direction, pruner=OPTUNAS.get(pruner))


def value(number: int, epoch: int) -> float:
    """A level per trial plus noise per epoch; coarse, so that there are ties."""
    level = np.random.default_rng(number).integers(0, 12)
    return float(level + np.random.default_rng([number, epoch]).integers(0, 3))


def judge(study: optuna.Study, pruner: PrunerName, number: int, until: int) -> bool:
    metric = "val_accuracy" if study.direction == optuna.study.StudyDirection.MAXIMIZE else "val_loss"
    return is_pruned(make_pruner(pruner, EPOCHS), study.get_trials(deepcopy=False), number, until, metric)


def judge_generations(study: optuna.Study, pruner: PrunerName, optunas: bool = False) -> list[tuple[int, int]]:
    """Six generations of eight, judged rung by rung; returns (number, rung) of every pruned trial."""
    pruned = []
    for _ in range(6):
        alive = [study.ask() for _ in range(8)]
        judged = {}
        reported = 0
        for until in make_pruner(pruner, EPOCHS).rungs():
            for trial in alive:
                for epoch in range(reported + 1, until + 1):
                    trial.report(value(trial.number, epoch), epoch)
            for trial in list(alive):
                if trial.should_prune() if optunas else judge(study, pruner, trial.number, until):
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
@pytest.mark.parametrize("pruner", OPTUNAS)
def test_the_judgements_are_optunas(pruner: PrunerName, direction: str) -> None:
    ours = judge_generations(new_study(pruner, direction), pruner)
    optuna_s = judge_generations(new_study(pruner, direction), pruner, optunas=True)
    assert ours == optuna_s
    assert 3 < len(ours) < 48


@pytest.mark.parametrize("pruner", PRUNERS)
def test_judgements_do_not_depend_on_the_studys_name(pruner: PrunerName) -> None:
    named = [judge_generations(new_study(pruner, "maximize", name), pruner) for name in ("one", "another")]
    assert named[0] == named[1]


def test_brackets_are_drawn_by_the_trials_number() -> None:
    brackets = [Hyperband(EPOCHS).bracket(number) for number in range(400)]
    assert brackets == [Hyperband(EPOCHS).bracket(number) for number in range(400)]
    counts = np.bincount(brackets)
    assert len(counts) == 4 and (np.diff(counts) < 0).all()  # four brackets, the earliest with the most trials


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_judgement_stands_when_later_values_are_known(pruner: PrunerName) -> None:
    """As found by a resuming driver: its trials have values of later rungs, and so do the trials after them."""
    study = new_study(pruner, "maximize")
    judge_generations(study, pruner)
    left = [study.ask() for _ in range(8)]
    first, second = make_pruner(pruner, EPOCHS).rungs()[:2]
    for trial in left:
        for epoch in range(1, first + 1):
            trial.report(value(trial.number, epoch), epoch)
    before = [judge(study, pruner, trial.number, first) for trial in left]
    for trial in left:
        for epoch in range(first + 1, second + 1):
            trial.report(value(trial.number, epoch), epoch)
    assert [judge(study, pruner, trial.number, first) for trial in left] == before
    assert True in before and False in before


def reported(study: optuna.Study, values: list[list[float]]) -> None:
    """A generation of trials with these values."""
    trials = [study.ask() for _ in values]
    for trial, own in zip(trials, values, strict=True):
        for epoch, shown in enumerate(own, start=1):
            trial.report(shown, epoch)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_after_a_quarter_the_better_half_goes_on(direction: str) -> None:
    """By its best value so far, ties included; trials of the same generation are rivals whatever their number."""
    sign = 1 if direction == "maximize" else -1
    metric = "val_accuracy" if sign > 0 else "val_loss"
    study = optuna.create_study(direction=direction)
    first = make_pruner("quarters", 8).rungs()[0]
    assert first == 2
    reported(study, [[sign * value for value in pair] for pair in ([1, 2], [5, 0], [2, 4], [3, 3], [4, 1], [3, 2])])
    trials = study.get_trials()
    pruned = [is_pruned(make_pruner("quarters", 8), trials, number, first, metric) for number in range(6)]
    assert pruned == [True, False, False, True, False, True]
    reported(
        study, [[sign * 4.0, sign * 4.0], [sign * 9.0]]
    )  # the second has not reached the rung and is nobody's rival
    again = [is_pruned(make_pruner("quarters", 8), study.get_trials(), number, first, metric) for number in (3, 6)]
    assert again == [True, False]


@pytest.mark.parametrize(
    ("pruner", "epochs", "expected"),
    [
        ("none", 30, []),
        ("median", 30, [4, 8, 12, 16, 20, 24, 28]),
        ("median", 3, [1, 2]),
        ("successive_halving", 30, [1, 3, 9, 27]),
        ("hyperband", 27, [1, 3, 9]),
        ("hyperband", 1, []),
        ("quarters", 30, [8, 15, 22]),
        ("quarters", 4, [1, 2, 3]),
        ("quarters", 2, [1]),
        ("quarters", 1, []),
    ],
)
def test_rungs(pruner: PrunerName, epochs: int, expected: list[int]) -> None:
    assert make_pruner(pruner, epochs).rungs() == expected
