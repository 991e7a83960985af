"""`headhunt reports fidelity`, killed and run again."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from reports.config import Run
from search.certificate import load_certificate
from search.leaderboard import load_study
from tests.conftest import run_headhunt
from tests.reports.test_fidelity_plan import SMALL

COMMAND = [sys.executable, "-P", "-m", "headhunt", "reports", "fidelity", "--json"]


@pytest.fixture
def searched_widely(searched: Run) -> Run:
    """The run with a study of rates that learn nothing, something and everything, so that a ranking exists."""
    raw = yaml.safe_load(Path("headhunt.yaml").read_text())
    raw["search"]["space"]["schedule"] = {
        "kind": "constant",
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    }
    Path("headhunt.yaml").write_text(yaml.safe_dump(raw))
    shutil.move("run", "before")
    for kept in ("dataset", "cache"):
        shutil.copytree(f"before/{kept}", f"run/{kept}")
    run_headhunt(Path.cwd(), "search", "run")
    return Run.model_validate(raw)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_study_that_is_killed_again_and_again_says_the_same(searched_widely: Run, tmp_path: Path) -> None:
    settings = [f"reports.fidelity.{name}={json.dumps(value)}" for name, value in SMALL.items()]
    overrides = [part for one in settings for part in ("--set", one)]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    before = tmp_path / "undisturbed"
    subprocess.run(["cp", "-r", ".", str(before)], check=True)

    def finish(folder: Path) -> dict[str, Any]:
        done = subprocess.run(
            [*COMMAND, *overrides], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    undisturbed = finish(before)
    moments, kills = random.Random(os.environ.get("HEADHUNT_KILL_SEED")), 0
    while kills < 5:
        with subprocess.Popen(
            [*COMMAND, *overrides],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as running:
            time.sleep(moments.uniform(3, 25))
            if running.poll() is not None:
                break
            # Its stages are in their own process groups, and end with their parent's session here.
            subprocess.run(["pkill", "-9", "-s", str(running.pid)], check=False)
            running.send_signal(signal.SIGKILL)
            kills += 1
    assert kills
    killed = finish(Path.cwd())
    untimed = {"cost", "date", "certificate"}
    assert {k: v for k, v in killed.items() if k not in untimed} == {
        k: v for k, v in undisturbed.items() if k not in untimed
    }
    assert not Path("run/fidelity/test_ledger.csv").exists()
    certificate = load_certificate(load_study(searched_widely))
    assert certificate is not None
    said = subprocess.run(
        [*COMMAND[:4], "train", "promote"], env=environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert certificate.lines(certificate.finetune, 0.7)[0] in said.stderr
