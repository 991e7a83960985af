"""Ctrl-C in a search with long tasks: one is enough, within seconds, and the running trials wait for the next run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from search.driver.ownership import read_driver

WAITING = optuna.trial.TrialState.WAITING
HOURS_LONG = ["--set", "search.epochs=1000000", "--set", "search.generation=4", "--trials", "4"]


def asked(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{folder}/run/study.db"
    return optuna.load_study(study_name="tiny", storage=storage).trials


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "kill"])
@pytest.mark.parametrize(("executor", "workers"), [("local", "1"), ("local", "2"), ("auto", "2"), ("ray", "2")])
def test_ctrl_c_while_trials_are_trained(
    searched_once: Path, tmp_path: Path, executor: str, workers: str, whole_group: bool
) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = tmp_path / "interrupted"
    shutil.copytree(searched_once, folder)
    (folder / "run" / "study.db").unlink()
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [str(Path(sys.executable).with_name("headhunt")), "search", "run", *HOURS_LONG]
    command += ["--executor", executor, "--workers", workers, "--set", "search.workers.cpus=1"]
    found = []
    for _ in range(2):  # the second run takes up the trials of the first
        process = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        wait_until_it_trains(process, folder)
        if whole_group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "interrupted; finished work is saved. Resume with:\n  headhunt search run" in said
        assert "internal error" not in said
        found.append(asked(folder))
        assert [trial.state for trial in found[-1]] == [WAITING] * 4
    assert [trial.params for trial in found[0]] == [trial.params for trial in found[1]]


def wait_until_it_trains(process: subprocess.Popen[str], folder: Path) -> None:
    """Waits until the trials are asked for, and long enough for workers to start on them."""
    until = time.monotonic() + 120
    while process.poll() is None and driver_of(folder) != process.pid:
        assert time.monotonic() < until, "no trial was asked for in two minutes"
        time.sleep(0.2)
    time.sleep(8)


def driver_of(folder: Path) -> int | None:
    """The process whose trials are asked for."""
    try:
        study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder}/run/study.db")
    except KeyError:
        return None
    driver = read_driver(study)
    return driver.pid if driver and len(study.trials) == 4 else None
