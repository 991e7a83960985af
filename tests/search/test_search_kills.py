"""`kill -9` of the driver, of workers and of the whole Ray cluster at random moments: rerunning the same command ends with the
study of an uninterrupted run, with no trial lost, doubled, or left RUNNING."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from tests.conftest import run_headhunt
from tests.kills import SEED, descendants

KILLS = {"local": 7, "auto": 3, "ray": 3}
"""Of the driver, by the executor that it has at that time."""

COMMAND = ["search", "run", "--json"]
for setting in (
    "trials=24", "generation=6", "epochs=9", "pruner=hyperband", "keep=5",
    "space.schedule={learning_rate: {low: 1.0e-4, high: 1.0, log: true}}",
):  # fmt: skip
    COMMAND += ["--set", f"search.{setting}"]


@pytest.fixture
def folder(searched_once: Path, tmp_path: Path) -> Path:
    """A folder with headhunt.yaml and the cache, without a study."""
    shutil.copytree(searched_once, tmp_path / "kills")
    forget(tmp_path / "kills" / "run")
    return tmp_path / "kills"


@pytest.fixture(scope="module")
def undisturbed(searched_once: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The study of an uninterrupted run."""
    calm = tmp_path_factory.mktemp("calm") / "calm"
    shutil.copytree(searched_once, calm)
    forget(calm / "run")
    run_headhunt(calm, *COMMAND)
    found = everything(calm / "run")
    states = [state for state, *_ in found]
    assert states.count("PRUNED") > 3 and states.count("COMPLETE") > 3, "a study that shows too little"
    return found


def forget(workdir: Path) -> None:
    """Deletes the study and the files of its trials."""
    (workdir / "study.db").unlink(missing_ok=True)
    shutil.rmtree(workdir / "trials", ignore_errors=True)


def everything(workdir: Path) -> list[Any]:
    """The results of a search, trial by trial in order of number, in the storage and on disk."""
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{workdir}/study.db")
    found = []
    for number, trial in enumerate(study.trials):
        assert trial.number == number
        files = workdir / "trials" / str(number)
        weights = {}
        if (files / "weights.npz").exists():
            weights = {name: value.tobytes() for name, value in np.load(files / "weights.npz").items()}
        facts = {name: value for name, value in trial.user_attrs.items() if name != "seconds"}
        kept = (trial.params, trial.intermediate_values, facts, (files / "curves.csv").read_text(), weights)
        found.append((trial.state.name, trial.value, *kept))
    return found


def start(folder: Path, executor: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [str(Path(sys.executable).with_name("headhunt")), *COMMAND, "--executor", executor, "--workers", "2"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def written(workdir: Path) -> int:
    """The number of values in the storage, which grows with every step of a search."""
    tables = ("trials", "trial_params", "trial_intermediate_values", "trial_values", "trial_user_attributes")
    try:
        with closing(sqlite3.connect(f"file:{workdir}/study.db?mode=ro", uri=True, timeout=30)) as database:
            return sum(database.execute(f"select count(*) from {table}").fetchone()[0] for table in tables)
    except sqlite3.OperationalError:
        return 0


def wait_for_a_write(folder: Path, process: subprocess.Popen[str], before: int) -> None:
    until = time.monotonic() + 120
    while written(folder / "run") <= before and process.poll() is None:
        assert time.monotonic() < until, "nothing was written in two minutes"
        time.sleep(0.01)


OWN = "features.runtime.workers.worker_process"
"""What is in the command of a worker without Ray."""


def wait_for_work(process: subprocess.Popen[str]) -> list[int]:
    """The workers that are separate processes; with Ray, those training at this moment."""
    while process.poll() is None:
        workers = [number for number, line in descendants(process.pid) if line.startswith("ray::train_") or OWN in line]
        if workers:
            return workers
        time.sleep(0.02)
    return []


def finish(folder: Path, executor: str = "local") -> None:
    """Runs the command as often as it takes: once, if nothing kills it."""
    process = start(folder, executor)
    printed, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert json.loads(printed.splitlines()[-1])["ended"] == "trials"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_driver_is_killed_again_and_again(folder: Path, undisturbed: list[Any]) -> None:
    chance = random.Random(SEED)
    print(f"HEADHUNT_KILL_SEED={SEED}")
    order = [executor for executor, kills in KILLS.items() for _ in range(kills)]
    chance.shuffle(order)
    kills = 0
    while order:
        before = written(folder / "run")
        process = start(folder, order[-1])
        wait_for_a_write(folder, process, before)
        time.sleep(chance.uniform(0, 0.6))
        process.kill()
        _, said = process.communicate()
        assert written(folder / "run") >= before, "what was written is gone"
        if process.returncode == 0:  # it finished before it was killed: start over
            assert everything(folder / "run") == undisturbed
            forget(folder / "run")
            continue
        assert process.returncode == -signal.SIGKILL, said
        order.pop()
        kills += 1
    assert kills == sum(KILLS.values())
    finish(folder)
    assert everything(folder / "run") == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("executor", ["auto", "ray"])
def test_workers_are_killed_while_the_driver_goes_on(folder: Path, undisturbed: list[Any], executor: str) -> None:
    chance = random.Random(SEED + 1)
    print(f"HEADHUNT_KILL_SEED={SEED}")
    kills = 0
    while kills < 4:
        process = start(folder, executor)
        wait_for_a_write(folder, process, 0)
        for _ in range(3):
            workers = wait_for_work(process)
            time.sleep(chance.uniform(0, 0.3))
            if workers and process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    kills += 1
        _, said = process.communicate(timeout=280)
        assert process.returncode == 0, said
        assert everything(folder / "run") == undisturbed
        forget(folder / "run")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", ["raylet", "gcs_server", ""], ids=["raylet", "head", "everything"])
def test_a_cluster_is_killed(folder: Path, undisturbed: list[Any], part: str) -> None:
    chance = random.Random(f"{SEED} {part}")
    print(f"HEADHUNT_KILL_SEED={SEED}")
    killed = 0
    while not killed:
        forget(folder / "run")
        process = start(folder, "ray")
        wait_for_work(process)
        time.sleep(chance.uniform(0, 1))
        for number, line in descendants(process.pid):
            if part in line.split(" ")[0] and process.poll() is None:
                os.kill(number, signal.SIGKILL)
                killed += 1
        _, said = process.communicate(timeout=100)
        if process.returncode == 0:  # it was through
            killed = 0
    assert process.returncode == 1, said
    assert "headhunt: the Ray cluster is gone: " in said and "Resume with:\n  headhunt search run --json" in said
    assert "Traceback" not in said
    finish(folder, "ray" if part else "local")
    assert everything(folder / "run") == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("executor", "workers"), [("auto", "1"), ("auto", "4"), ("ray", "1"), ("ray", "4"), ("local", "1"), ("local", "4")]
)
def test_any_number_of_workers_gives_the_same_study(
    folder: Path, undisturbed: list[Any], executor: str, workers: str
) -> None:
    cpus = ["--set", "search.workers.cpus=0.5"]  # so that four workers run on two cores
    run_headhunt(folder, *COMMAND, "--executor", executor, "--workers", workers, *(cpus if executor == "ray" else []))
    assert everything(folder / "run") == undisturbed
