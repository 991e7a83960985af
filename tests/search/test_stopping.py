"""Stopping by trials, hours and target, and when nothing works: at which trial, and why."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from features.runtime.errors import HeadhuntError
from reports.config import Run
from search.config import SearchConfig
from search.driver.stopping import check_failures, reached_end
from search.leaderboard import load_study
from tests.forks import run_python
from tests.search.test_study import fresh, history  # noqa: F401

COMPLETE, FAIL, PRUNED, RUNNING = (optuna.trial.TrialState[name] for name in ("COMPLETE", "FAIL", "PRUNED", "RUNNING"))


def study_of(*values: float, direction: str = "maximize") -> optuna.Study:
    study = optuna.create_study(study_name="x", direction=direction)
    for value in values:
        trial = study.ask()
        trial.set_user_attr("config", "{}")
        study.tell(trial, value)
    return study


def test_a_study_goes_on_until_it_has_its_trials() -> None:
    assert reached_end(study_of(0.5, 0.9), SearchConfig(trials=3), 1e9) is None
    end = reached_end(study_of(0.5, 0.9, 0.1), SearchConfig(trials=3), 0)
    assert end == ("trials", "The study 'x' has its 3 trials.")


def test_hours_count() -> None:
    search = SearchConfig(hours=2)
    assert reached_end(study_of(0.5), search, 7199) is None
    end = reached_end(study_of(0.5), search, 9000)
    assert end is not None and end.by == "hours"
    assert "ends with 1 trial: it has searched for 2.5 hours, and `search.hours` is 2." in end.why


def test_a_target_is_reached_by_the_best_trial_in_the_objectives_direction() -> None:
    assert reached_end(study_of(0.5, 0.79), SearchConfig(target=0.8), 0) is None
    end = reached_end(study_of(0.5, 0.8, 0.7), SearchConfig(target=0.8), 0)
    assert end is not None and end.by == "target"
    assert "trial 1 has reached val_accuracy 0.8000, and `search.target` is 0.8" in end.why
    losses = SearchConfig(objective="val_loss", target=0.8)
    assert reached_end(study_of(1.5, 0.9, direction="minimize"), losses, 0) is None
    assert reached_end(study_of(1.5, 0.7, direction="minimize"), losses, 0) is not None


def test_a_pruned_trial_reaches_no_target() -> None:
    study = study_of(0.5)
    trial = study.ask()
    trial.report(0.9, 1)
    study.tell(trial, state=PRUNED)
    assert reached_end(study, SearchConfig(target=0.8), 0) is None


@pytest.mark.parametrize("others", [(COMPLETE,), (PRUNED,), (RUNNING,)])
def test_one_trial_that_works_is_enough_to_go_on(others: tuple[optuna.trial.TrialState, ...]) -> None:
    study = optuna.create_study()
    for state in (FAIL, *others):
        trial = study.ask()
        trial.set_user_attr("config", "{}")
        if state != RUNNING:
            study.tell(trial, 0.5 if state == COMPLETE else None, state=state)
    check_failures(study)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (
            "the loss is not finite after epoch 1",
            "Lower the learning rates in `search.space.schedule.learning_rate`, or",
        ),
        (
            "out of memory: 3 GB",
            "Lower `search.lanes`, the largest `search.space.head.units` or `search.space.batch_size`",
        ),
    ],
)
def test_when_everything_fails_it_says_why_and_what_to_change(reason: str, advice: str) -> None:
    study = optuna.create_study()
    for _ in range(3):
        trial = study.ask()
        trial.set_user_attr("config", "{}")
        trial.set_user_attr("reason", reason)
        study.tell(trial, state=FAIL)
    with pytest.raises(
        HeadhuntError, match=f"all 3 trials so far have failed; the first: {reason}. {advice}"
    ) as caught:
        check_failures(study)
    assert "give it another `name` and `workdir`" in str(caught.value)


def test_trials_that_others_added_do_not_hide_that_everything_fails() -> None:
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(state=FAIL))
    check_failures(study)  # not the search's
    study.add_trial(optuna.trial.create_trial(value=1.0))
    study.add_trial(optuna.trial.create_trial(state=FAIL, user_attrs={"config": "{}", "reason": "out of memory: 3 GB"}))
    with pytest.raises(HeadhuntError, match="its only trial so far has failed: out of memory"):
        check_failures(study)


def test_a_search_stops_goes_on_and_gives_up(fresh: Run, searched_once: Path) -> None:  # noqa: F811
    """Stopping limits are not part of a study's identity. A study in which everything has failed does not continue."""
    body = (
        "from pathlib import Path\nfrom features.run_file import load\nfrom features.runtime.errors import HeadhuntError\n"
        "from search.config import SearchRun\nfrom search.study import run_search\n"
        "def search(*given):\n"
        "    result = run_search(load(SearchRun, Path('headhunt.yaml'), [f'search.{one}' for one in given]))\n"
        "    return result['ended'], result['trials']['complete']\n"
        "assert search('hours=1e-9') == ('hours', 0)\n"
        "assert search('target=0.0') == ('target', 3)\n"
        "assert search('target=0.0') == ('target', 3)\n"
        "assert search() == ('trials', 6)\n"
        "Path('run/trials/study.txt').unlink()\n"
        "for attempt in range(2):\n"
        "    try:\n"
        "        wild = '{head: {l2: 1.0e+6}, optimizer: {kind: sgd}, schedule: {learning_rate: 10}, batch_size: 4}'\n"
        "        search(f'space={wild}', 'storage=journal')\n"
        "    except HeadhuntError as error:\n"
        "        assert 'all 3 trials so far have failed; the first: the loss is not finite' in str(error), error\n"
        "    else:\n"
        "        raise AssertionError('it went on')\n"
    )
    done = run_python(body)
    assert done.returncode == 0, done.stderr
    assert "ends with 3 trials: trial" in " ".join(done.stderr.split())
    assert history("run") == history(str(searched_once / "run"))
    failed = fresh.model_copy(update={"search": fresh.search.model_copy(update={"storage": "journal"})})
    assert [trial.state for trial in load_study(failed).trials] == [FAIL] * 3


def test_impossible_hours(searched: Run) -> None:
    from typer.testing import CliRunner

    from search.cli import app

    refused = CliRunner().invoke(app, ["run", "--dry-run", "--hours", "0", "--target", "0.8"])
    assert refused.exit_code == 2
    assert "search.hours" in refused.stderr and "greater than 0" in refused.stderr
