"""Trials added to a study from outside by Optuna's `study.add_trial`: shown, but ignored by every command."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
from optuna.trial import TrialState, create_trial

from reports.config import Run
from search.first_trials import name_of
from search.ranking import ASKED
from tests.conftest import run_headhunt
from tests.forks import run_command
from tests.search.test_first_trials import forget

FIRST = ["--set", "search.first=[probe,known_good]"]


def test_every_command_leaves_the_trials_of_others_alone(searched: Run) -> None:
    """Adds the best trial of all and one that never ends, after the search has asked for its first trial."""
    forget(Path())
    run_headhunt(Path(), "search", "run", "--trials", "1", *FIRST)
    study = optuna.load_study(study_name="tiny", storage="sqlite:///run/study.db")
    study.add_trial(create_trial(value=0.99))
    study.add_trial(create_trial(state=TrialState.RUNNING))
    done = run_headhunt(Path(), "search", "run", "--trials", "5", "--json", *FIRST)
    counts = json.loads(done.stdout)["trials"]
    assert sum(counts.values()) == 5
    trials = study.get_trials()
    assert [trial.number for trial in trials if "config" not in trial.user_attrs] == [1, 2]
    assert (trials[1].value, trials[2].state.name, len(trials)) == (0.99, "RUNNING", 7)
    assert [name_of(trial) for trial in trials] == ["probe", None, None, "known_good", None, None, None]
    ended = [trial.number for trial in trials if trial.state.is_finished()]
    assert ended == [0, 1, 3, 4, 5, 6]
    top = run_headhunt(Path(), "search", "top", *FIRST).stdout
    assert "Added to the study from outside this search, not ranked: trial 1 (0.99" in " ".join(top.split())
    confirmed = json.loads(
        run_headhunt(Path(), "search", "confirm", "--top", "2", "--seeds", "2", "--json", *FIRST).stdout
    )
    assert not {1, 2} & {row["number"] for row in confirmed["confirmed"]}
    run_headhunt(Path(), "reports", "build", *FIRST)
    assert run_headhunt(Path(), "search", "run", "--trials", "5", "--json", *FIRST).returncode == 0
    assert len(study.get_trials()) == 7  # has ended, whatever is added from outside


def test_a_trial_of_the_search_that_somebody_told_is_not_ranked(searched: Run) -> None:
    """As in the dashboard after a kill: the trial was asked for, and its value is somebody's."""
    study = optuna.load_study(study_name="tiny", storage="sqlite:///run/study.db")
    left = study.ask()
    left.set_user_attr(ASKED, True)
    left.set_user_attr("config", study.trials[0].user_attrs["config"])
    study.tell(left, 0.99)
    top = run_headhunt(Path(), "search", "top", "--json")
    assert "Added to the study from outside this search, not ranked: trial 6 (0.99" in " ".join(top.stderr.split())
    assert 6 not in {row["number"] for row in json.loads(top.stdout)["trials"]}
    confirmed = json.loads(run_headhunt(Path(), "search", "confirm", "--top", "6", "--seeds", "2", "--json").stdout)
    assert {row["number"] for row in confirmed["confirmed"]} == set(range(6))


def test_another_objective_in_the_configuration_is_refused_by_every_reader(searched: Run) -> None:
    """Its ranking would be upside down."""
    other = ("--set", "search.objective=val_loss")
    for command in (("search", "top"), ("search", "confirm"), ("train", "promote")):
        done = run_command(Path(), (*command, *other))
        assert done.returncode == 2, done.stdout
        (said,) = [line for line in done.stderr.splitlines() if line.startswith("headhunt: ")]
        assert said.startswith(
            "headhunt: search.objective: received val_loss, but the study 'tiny' searches by val_accuracy. Restore it"
        )
    page = run_headhunt(Path(), "reports", "build", *other, "--json")
    assert "leaders" in json.loads(page.stdout)["left_out"]
