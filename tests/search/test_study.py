"""Studies: the same with one worker or two, the same after a kill; and the files they write."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest

from features.runtime.errors import HeadhuntError, UsageError
from reports.config import Run
from search.driver.worklog import load_work
from search.heads import HeadConfig
from search.leaderboard import leaders, load_study
from search.records import load_curves, load_weights
from search.trial import TrialConfig
from tests.conftest import run_headhunt
from tests.forks import run_command, run_python

FRESH = ["--set", "workdir=other"]


def history(workdir: str, name: str = "tiny") -> list[tuple[Any, ...]]:
    """Everything in a study that must not depend on how it was run."""
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{workdir}/study.db")
    return [
        (
            trial.number,
            trial.state.name,
            trial.value,
            trial.params,
            trial.intermediate_values,
            trial.user_attrs["config"],
        )
        for trial in study.trials
    ]


@pytest.fixture
def fresh(searched: Run) -> Run:
    """The run with its cache but without its study."""
    for name in ("study.db",):
        Path("run", name).unlink()
    for file in Path("run", "trials").rglob("*"):
        if file.is_file():
            file.unlink()
    return searched


def test_the_study_is_ordinary_optuna_and_its_records_are_plain_files(searched: Run) -> None:
    study = load_study(searched)
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.COMPLETE] * 6
    for trial in study.trials:
        config = TrialConfig.model_validate(json.loads(trial.user_attrs["config"]))
        curves = load_curves(Path("run"), trial.number)
        assert curves["epoch"].tolist() == [1, 2, 3, 4]
        assert trial.value == pytest.approx(curves["val_accuracy"].max())
        assert trial.intermediate_values == pytest.approx(
            dict(zip(curves["epoch"], curves["val_accuracy"], strict=True))
        )
        weights = load_weights(Path("run"), trial.number)
        assert weights["classifier.kernel"].shape == (config.head.units[-1] if config.head.units else 6, 3)
        assert not [name for name in weights if name.startswith("dropout")]


def test_the_best_leaders_are_the_first_of_all(searched: Run) -> None:
    ranked = leaders(searched)
    assert leaders(searched, 2) == ranked[:2]
    assert isinstance(ranked[0].config.head, HeadConfig)


def test_two_workers_give_the_same_study(fresh: Run, searched_once: Path) -> None:
    """Processes of this machine; by Ray: tests/search/test_first_trials.py."""
    done = run_headhunt(Path.cwd(), "search", "run", "--executor", "auto", "--workers", "2")
    assert "Workers: 2 processes on this machine." in done.stderr
    assert history("run") == history(str(searched_once / "run"))
    work = load_work(fresh.workdir)
    assert (sum(row.ended for row in work), {row.workers for row in work}) == (6, {2})
    assert all(
        re.fullmatch(r"[^/]+/\d+", row.worker) for row in work
    )  # processes, each of which trains one task at a time


def test_a_local_search_does_not_import_tensorflow(fresh: Run) -> None:
    body = (
        "import sys\nfrom pathlib import Path\nfrom features.run_file import load\nfrom search.config import SearchRun\n"
        "from search.study import run_search\nrun_search(load(SearchRun, Path('headhunt.yaml')))\n"
        "assert 'keras' in sys.modules and 'tensorflow' not in sys.modules\n"
    )
    done = run_python(body)
    assert done.returncode == 0, done.stderr


def test_a_killed_study_goes_on_as_if_it_had_not_been(fresh: Run, searched_once: Path) -> None:
    """Killed in the middle of the second generation: its trials are asked for, none is told."""
    body = (
        "import os\nfrom pathlib import Path\nfrom features.run_file import load\nfrom search.config import SearchRun\n"
        "import search.driver.driver, search.study\njudge, calls = search.driver.driver.Driver._judge, []\n"
        "def kill(self, *arguments):\n"
        "    calls.append(1)\n    if len(calls) == 5: os.kill(os.getpid(), 9)\n    judge(self, *arguments)\n"
        "search.driver.driver.Driver._judge = kill\nsearch.study.run_search(load(SearchRun, Path('headhunt.yaml')))\n"
    )
    done = run_python(body)
    assert done.returncode == -signal.SIGKILL, done.stderr
    states = [state for _, state, *_ in history("run")]
    assert states == ["COMPLETE"] * 3 + ["RUNNING"] * 3
    run_headhunt(Path.cwd(), "search", "run")
    assert history("run") == history(str(searched_once / "run"))


def test_more_trials_go_on_and_pruned_and_failed_ones_are_recorded(fresh: Run) -> None:
    options = ["--set", "search.pruner=successive_halving", "--set", "search.generation=6"]
    wild = "search.space.schedule={learning_rate: [1.0e-3, 10.0]}"
    first = run_headhunt(Path.cwd(), "search", "run", "--trials", "6", *options, "--set", wild, "--json")
    second = run_headhunt(Path.cwd(), "search", "run", "--trials", "12", *options, "--set", wild, "--json")
    counts = json.loads(second.stdout.splitlines()[-1])["trials"]
    assert sum(json.loads(first.stdout.splitlines()[-1])["trials"].values()) == 6
    assert sum(counts.values()) == 12
    assert counts["pruned"] > 0
    for trial in optuna.load_study(study_name="tiny", storage="sqlite:///run/study.db").trials:
        epochs = len(pd.read_csv(f"run/trials/{trial.number}/curves.csv"))
        assert epochs == 4 if trial.state.name == "COMPLETE" else epochs in (1, 3)


def test_a_studys_name_changes_nothing(fresh: Run) -> None:
    """With Hyperband, whose brackets Optuna draws from the study's name, and a sampler that learns from earlier trials."""
    settings = ["search.pruner=hyperband", "search.trials=16", "search.generation=8", "search.space.batch_size=[4]"]
    options = [part for setting in settings for part in ("--set", setting)]
    histories = []
    for name in ("one", "another"):
        run_headhunt(Path.cwd(), "search", "run", "--set", f"name={name}", *options)
        histories.append(history("run", name))
        Path("run", "study.db").unlink()
        shutil.rmtree(Path("run", "trials"))
    assert histories[0] == histories[1]
    assert {state for _, state, *_ in histories[0]} == {"COMPLETE", "PRUNED"}


def test_kerastuners_hyperband_trains_each_trial_for_its_epochs(fresh: Run) -> None:
    """At most 4 epochs, factor 3: a bracket of 5 trials with 2 epochs, 2 of which continue to 4, then 3 trials with 4 epochs."""
    options = [
        "search.sampler=keras_tuner.hyperband",
        "search.space.schedule={learning_rate: [1.0e-3, 3.0e-3, 1.0e-2]}",
    ]
    chosen = [part for option in options for part in ("--set", option)]
    run_headhunt(Path.cwd(), "search", "run", "--trials", "8", *chosen, "--set", "search.generation=4")
    trials = optuna.load_study(study_name="tiny", storage="sqlite:///run/study.db").trials
    allotted = [trial.user_attrs["keras_tuner"] for trial in trials]
    assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}
    curves = [load_curves(Path("run"), trial.number).drop(columns="learning_rate") for trial in trials]
    assert [len(curve) for curve in curves] == [given["epochs"] for given in allotted]
    promoted = [number for number, given in enumerate(allotted) if given["continues"] is not None]
    assert promoted
    for number in promoted:
        origin = curves[allotted[number]["origin"]]
        pd.testing.assert_frame_equal(curves[number].iloc[: len(origin)], origin)


def test_a_study_ends_with_its_grid(fresh: Run) -> None:
    options = ["--set", "search.sampler=grid", "--set", "search.space.schedule={learning_rate: [1.0e-3, 1.0e-2]}"]
    done = run_headhunt(Path.cwd(), "search", "run", "--trials", "20", *options, "--json")
    assert sum(json.loads(done.stdout.splitlines()[-1])["trials"].values()) == 4
    said = "The study 'tiny' ends with 4 trials: the grid is exhausted: all of its 4 configurations have been tried."
    assert said in " ".join(done.stderr.split())
    again = run_headhunt(Path.cwd(), "search", "run", "--trials", "20", *options)
    assert said in " ".join(again.stderr.split())


def test_other_settings_under_the_same_name_are_refused(searched: Run) -> None:
    from search.study import run_search

    changed = searched.model_copy(
        update={"search": searched.search.model_copy(update={"epochs": 9, "seed": 5, "trials": 9})}
    )
    with pytest.raises(UsageError, match=r"other settings: .*epochs \(was 4, is 9\).* Use another `name`"):
        run_search(changed)


def test_another_studys_trials_are_not_overwritten(searched: Run) -> None:
    from search.study import run_search

    with pytest.raises(
        UsageError, match=r"trials holds the trials of the study 'tiny', and 'other' would overwrite them"
    ):
        run_search(searched.model_copy(update={"name": "other"}))


def test_a_second_driver_is_refused(searched: Run) -> None:
    from features.runtime.atomic import only_process
    from search.study import run_search

    with (
        only_process(searched.workdir / ".search.lock", ""),
        pytest.raises(UsageError, match=rf"another search is running .*process {os.getpid()}"),
    ):
        run_search(searched)


def test_weights_that_were_not_kept_say_how_to_keep_them(searched: Run) -> None:
    with pytest.raises(HeadhuntError, match=r"the weights of trial 99 are not in run/trials/99.*raise `search.keep`"):
        load_weights(searched.workdir, 99)


def test_a_gpu_that_is_not_there_is_refused_before_a_trial_is_asked_for(
    fresh: Run,
) -> None:
    for executor in ("auto", "local", "ray"):
        arguments = ("search", "run", "--executor", executor, "--set", "search.workers.gpus=1")
        done = run_command(Path.cwd(), arguments, {"CUDA_VISIBLE_DEVICES": "-1"})  # also where there is one
        assert done.returncode == 2, done.stderr
        (said,) = [line for line in done.stderr.splitlines() if line.startswith("headhunt: ")]
        assert "each worker needs 1 GPU (`workers.gpus`), but JAX finds none on this machine." in said
        assert not Path("run/study.db").exists()


@pytest.mark.parametrize(
    "stage", [("features", "cache"), ("search", "run"), ("search", "confirm"), ("train", "promote")]
)
def test_a_gpu_that_is_not_there_is_refused_where_all_is_done_too(searched: Run, stage: tuple[str, str]) -> None:
    asked = f"{stage[0]}.workers.gpus=1"
    done = run_command(Path.cwd(), (*stage, "--set", asked), {"CUDA_VISIBLE_DEVICES": "-1"})
    assert done.returncode == 2, done.stderr
    assert "each worker needs 1 GPU (`workers.gpus`)" in done.stderr


def test_no_study(fresh: Run) -> None:
    with pytest.raises(
        UsageError, match=r"there is no study 'tiny' in sqlite:///run/study.db. Run `headhunt search run`"
    ):
        leaders(fresh)
    assert not Path("run/study.db").exists()


def test_neither_workers_nor_the_grouping_of_trials_change_the_study(fresh: Run, searched_once: Path) -> None:
    """Local workers are threads; tasks of 1, 2 and 8 trials of a structure; lanes side by side are the same within rounding."""
    body = (
        "import shutil\nfrom pathlib import Path\nfrom features.run_file import load\nfrom search.config import SearchRun\n"
        "import search.study, search.population.heads_objective\nfrom features.runtime.workers.config import Workers\n"
        "from search.population.structure import chunks\n"
        "def study(workdir, workers, size, **changed):\n"
        "    shutil.copytree('run', workdir)\n"
        "    run = load(SearchRun, Path('headhunt.yaml'))\n"
        "    changed['workers'] = Workers(executor='local', count=workers, cpus=1)\n"
        "    search.population.heads_objective.chunks = lambda c, lanes, *shape: chunks(c, size or lanes, *shape)\n"
        "    changed = {'workdir': Path(workdir), 'search': run.search.model_copy(update=changed)}\n"
        "    search.study.run_search(run.model_copy(update=changed))\n"
        "for workers, size in ((1, 1), (2, 2), (4, 8)):\n"
        "    study(f'w{workers}-{size}', workers, size)\n"
        "study('lanes', 1, None, lanes=2)\n"
    )
    done = run_python(body)
    assert done.returncode == 0, done.stderr
    wanted = history(str(searched_once / "run"))
    for workdir in ("w1-1", "w2-2", "w4-8"):
        assert history(workdir) == wanted
        for number in range(6):
            ours, theirs = (load_weights(Path(folder), number) for folder in (workdir, searched_once / "run"))
            assert all((ours[name] == theirs[name]).all() for name in theirs)
    side_by_side = [Path("lanes/trials", str(number), "curves.csv") for number in range(6)]
    for number, path in enumerate(side_by_side):
        assert pd.read_csv(path).to_numpy() == pytest.approx(load_curves(Path("w1-1"), number).to_numpy(), rel=1e-4)


def test_only_the_best_trials_have_weights(fresh: Run) -> None:
    run_headhunt(Path.cwd(), "search", "run", "--set", "search.keep=2")
    best = {str(leader.number) for leader in leaders(fresh, 2)}
    assert {path.parent.name for path in Path("run/trials").glob("*/weights.npz")} == best
    assert len(list(Path("run/trials").glob("*/curves.csv"))) == 6
