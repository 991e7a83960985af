"""However a search is interrupted, no trial is left running or failed, and the next run continues as if nothing had happened."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
import pytest

from features.cache.feature_cache import cache_for
from reports.config import Run
from search.driver.set_aside import ask, set_aside, take_up, under_way
from search.driver.storage import open_storage
from tests.conftest import run_headhunt
from tests.forks import run_command, run_python
from tests.search.test_study import history

DRIVER = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored
from search.driver import driver

judge, calls = driver.Driver._judge, []

def ended(self, *arguments):
    calls.append(1)
    if len(calls) == 5:  # in the middle of the second generation
        {fault}
    judge(self, *arguments)

driver.Driver._judge = ended
from headhunt import cli
sys.argv[1:] = ["search", "run"]
cli.main()
"""

FAULTS = {
    "exception": ("raise RuntimeError('never seen before')", 1, "internal error (RuntimeError)"),
    "full disk": ("raise OSError(28, 'No space left on device')", 1, "No space left on device"),
    "storage": (
        "from optuna.exceptions import StorageInternalError; raise StorageInternalError('disk I/O error')",
        1,
        "has failed: disk I/O error",
    ),
    "workers": (
        "from features.runtime.errors import DeadWorkersError; raise DeadWorkersError('a worker died')",
        1,
        "headhunt: a worker died",
    ),
    "interrupt": ("raise KeyboardInterrupt", 130, "interrupted; finished work is saved"),
    "SIGHUP": ("import os, signal; os.kill(os.getpid(), signal.SIGHUP)", 130, "Resume with:\n  headhunt search run"),
    "SIGTERM": ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 130, "Resume with:\n  headhunt search run"),
}


@pytest.fixture
def fresh(searched: Run) -> Run:
    """The run with its cache but without its study."""
    Path("run", "study.db").unlink()
    shutil.rmtree(Path("run", "trials"))
    return searched


def states() -> list[str]:
    return [state for _, state, *_ in history("run")]


@pytest.mark.parametrize("fault", FAULTS)
def test_trials_under_way_wait_for_the_next_run(fresh: Run, searched_once: Path, fault: str) -> None:
    raised, status, message = FAULTS[fault]
    done = run_python(DRIVER.format(fault=raised))
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
    assert states() == ["COMPLETE"] * 3 + ["WAITING"] * 3
    run_headhunt(Path.cwd(), "search", "run")
    assert history("run") == history(str(searched_once / "run"))


def damage(run: Run) -> Path:
    """Flips one bit of a feature of an augmented copy; returns the shard."""
    shard = cache_for(run).folder / "train-c001-00000-of-00001.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0x40
    shard.write_bytes(data)
    return shard.resolve()


def refused(shard: Path, *arguments: str) -> None:
    """The command ends with one message, which names the shard."""
    done = run_command(Path.cwd(), arguments)
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("headhunt: ")]
    assert f"headhunt: the shard {shard} is damaged" in said
    assert "Run `headhunt features repair`" in said
    assert "Traceback" not in done.stderr


def test_a_damaged_shard_is_named_by_what_comes_after_a_search(searched: Run) -> None:
    refused(damage(searched), "search", "confirm")
    assert states() == ["COMPLETE"] * 6


@pytest.mark.parametrize("executor", ["local", "auto", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_damaged_shard_is_named_and_is_no_trials_failure(fresh: Run, searched_once: Path, executor: str) -> None:
    refused(damage(fresh), "search", "run", "--executor", executor)
    assert states() == ["WAITING"] * 3
    run_headhunt(Path.cwd(), "features", "repair")
    run_headhunt(Path.cwd(), "search", "run")
    assert history("run") == history(str(searched_once / "run"))


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_what_somebody_enqueued_is_not_taken_for_a_trial_that_was_left(tmp_path: Path, kind: str) -> None:
    study = optuna.create_study(storage=open_storage(kind, tmp_path), study_name="x")
    study.enqueue_trial({"x": 1.0})
    left = study.ask()  # takes up the enqueued one
    study.tell(left, 0.5)
    begun, killed = ask(study), ask(study)
    study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.RUNNING))  # added from outside
    begun.suggest_float("x", 0, 1)
    begun.report(0.25, 1)
    set_aside(study)
    study.enqueue_trial({"x": 2.0})
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "WAITING", "WAITING", "RUNNING", "WAITING"]
    assert [trial.number for trial in under_way(study)] == [begun.number, killed.number]
    again = optuna.load_study(storage=open_storage(kind, tmp_path), study_name="x")
    assert [trial.number for trial in take_up(again)] == [begun.number, killed.number]
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "RUNNING", "RUNNING", "RUNNING", "WAITING"]
    taken = again.trials[begun.number]
    assert (taken.params, taken.intermediate_values) == (begun.params, {1: 0.25})
