"""For a storage without transactions: if the driver dies between any two writes, the next one ends with the same study."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.forks import run_python
from tests.kills import SEED

DEATHS = 24

BODY = """
import random, shutil, sys
from pathlib import Path
import optuna
from optuna.storages.journal import JournalFileBackend
from features.run_file import load
from search.config import SearchRun
from search.driver.ownership import ATTRIBUTE, read_driver
from search.leaderboard import load_study
from search.study import run_search

class Died(BaseException):
    pass

append, left, written = JournalFileBackend.append_logs, None, 0

def append_or_die(self, logs):
    global left, written
    if left == 0:
        raise Died
    left, written = None if left is None else left - 1, written + 1
    append(self, logs)

JournalFileBackend.append_logs = append_or_die

def configured(name):
    for part in ("cache", "dataset"):
        Path(name).mkdir(exist_ok=True)
        if not Path(name, part).exists():
            Path(name, part).symlink_to(Path("run", part).resolve())
    given = ["pruner=successive_halving", "generation=4", "trials=10", "storage=journal",
             "space.schedule={learning_rate: {low: 1.0e-4, high: 1.0, log: true}}"]
    return load(SearchRun, Path("headhunt.yaml"), [f"workdir={name}", *(f"search.{one}" for one in given)])

def history(run):
    facts = ("config", "outcome", "best_epoch", "top5", "reason")
    return [
        (trial.number, trial.state.name, trial.value, trial.params, trial.intermediate_values,
         [trial.user_attrs.get(name) for name in facts], Path(run.workdir, "trials", str(trial.number), "curves.csv").read_text())
        for trial in load_study(run).trials
    ]

calm = configured("calm")
run_search(calm)
wanted, writes = history(calm), written
assert {state for _, state, *_ in wanted} == {"COMPLETE", "PRUNED"}
chance = random.Random(int(sys.argv[1]))
for death in sorted(chance.sample(range(2, writes), int(sys.argv[2]))):
    run, left = configured(f"death-{death}"), death
    try:
        run_search(run)
    except Died:
        pass
    else:
        raise AssertionError(f"it did not die at write {death} of {writes}")
    left = None
    study = load_study(run)
    if read_driver(study):  # as if this process had ended
        study.set_user_attr(ATTRIBUTE, read_driver(study)._replace(birth="1")._asdict())
    run_search(run)
    assert history(run) == wanted, f"died at write {death} of {writes}"
print(f"{sys.argv[2]} deaths among {writes} writes")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_may_die_between_any_two_writes(searched_once: Path, tmp_path: Path) -> None:
    print(f"HEADHUNT_KILL_SEED={SEED}")
    folder = tmp_path / "half"
    shutil.copytree(searched_once, folder)
    (folder / "run" / "study.db").unlink()
    done = run_python(BODY, str(SEED), str(DEATHS), folder=folder)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
