"""The first trials of a study: what they are, what samplers see of them, and that they do not depend on how a study was run."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from pydantic import ValidationError

from features.cache.feature_cache import cache_for
from features.cache.views import Views
from reports.config import Run
from reports.section import LeftOutError
from reports.study import first_trials as section
from reports.study import leaders_table
from search.config import SearchConfig
from search.driver.worklog import load_work
from search.first_trials import TITLES, FirstTrial, first_config, name_of
from search.leaderboard import leaders, load_study
from search.optimizers import LBFGS
from search.records import are_kept, load_curves, load_weights
from search.retrain import trial_weights
from search.review.describe import describe, shown_values
from search.space import SearchSpace
from search.trial import TrialConfig
from tests.conftest import run_headhunt
from tests.forks import run_python

NAMES: tuple[FirstTrial, ...] = ("probe", "known_good", "notebook")
POOLING, PARTS = "avg+max+covariance:4", ["avg", "avg+max+covariance:4"]
POOLED = ["--set", f"features.pooling={POOLING}", "--set", f"search.space.features.parts=[{','.join(PARTS)}]"]
WITH = ["--set", f"search.first=[{','.join(NAMES)}]", "--set", "search.pruner=hyperband", *POOLED]
COMMAND = ["search", "run", "--trials", "9", *WITH]


def forget(folder: Path) -> None:
    """Deletes the study and the files of its trials."""
    (folder / "run" / "study.db").unlink(missing_ok=True)
    shutil.rmtree(folder / "run" / "trials", ignore_errors=True)


def everything(folder: Path) -> list[Any]:
    """The part of a study that must not depend on how it was run."""
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder}/run/study.db")
    found = []
    for trial in study.trials:
        file = folder / "run" / "trials" / str(trial.number) / "weights.npz"
        weights = {name: value.tobytes() for name, value in np.load(file).items()} if file.exists() else {}
        facts = {name: value for name, value in trial.user_attrs.items() if name != "seconds"}
        found.append((trial.state.name, trial.value, trial.params, trial.intermediate_values, facts, weights))
    return found


@pytest.fixture(scope="module")
def once(searched_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose study has first trials, then heads on all features or a part of them; read-only."""
    folder = tmp_path_factory.mktemp("first") / "first"
    shutil.copytree(searched_once, folder)
    forget(folder)
    run_headhunt(folder, "features", "cache", *POOLED)
    run_headhunt(folder, *COMMAND)
    return folder


@pytest.fixture
def run(once: Path, tmp_path: Path, searched: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of that folder, in a copy that becomes the working directory."""
    shutil.copytree(once, tmp_path / "first")
    monkeypatch.chdir(tmp_path / "first")
    raw = searched.search.model_dump(mode="json")
    raw |= {"first": NAMES, "pruner": "hyperband", "trials": 9, "space": {**raw["space"], "features": {"parts": PARTS}}}
    features = searched.features.model_copy(update={"pooling": POOLING})
    return searched.model_copy(update={"search": SearchConfig.model_validate(raw), "features": features})


def test_they_are_ordinary_trials_which_are_never_pruned(run: Run) -> None:
    trials = load_study(run).trials
    assert len(trials) == 9
    assert [name_of(trial) for trial in trials] == [*NAMES, *[None] * 6]
    assert [trial.state.name for trial in trials[:3]] == ["COMPLETE"] * 3
    assert trials[0].intermediate_values == {
        run.search.epochs: trials[0].value
    }  # not at epoch 1, where others have just started
    probe, known_good, notebook = (TrialConfig.model_validate_json(trial.user_attrs["config"]) for trial in trials[:3])
    assert probe.optimizer == LBFGS(folds=0) and probe.head.l2 > 0 and probe.head.units == ()
    assert (probe.views.copies, known_good.views.copies, notebook.views.copies) == (0, 0, 2)
    assert (known_good.epochs, notebook.epochs) == (4, 4)
    assert trials[0].params == {"head.layers": 0}
    assert trials[1].params == {
        "head.layers": 1,
        "schedule.kind": "warmup_cosine",
        "schedule.learning_rate": 3e-3,
    }  # this space has no hidden layer of 256


def test_the_probes_record_is_that_of_a_head(run: Run) -> None:
    probe = next(leader for leader in leaders(run) if leader.first == "probe")
    cache = cache_for(run)
    weights = load_weights(run.workdir, 0)
    assert {name: value.shape for name, value in weights.items()} == {
        "classifier.kernel": (22, 3),
        "classifier.bias": (3,),
    }
    curves = load_curves(run.workdir, 0)
    train = cache.arrays("train")[0].astype(np.float64)
    val, val_labels = cache.arrays("val")
    logits = (val - train.mean(0)) / train.std(0) @ weights["classifier.kernel"] + weights["classifier.bias"]
    assert curves["val_accuracy"].tolist() == [pytest.approx((logits.argmax(1) == val_labels).mean())]
    assert probe.value == pytest.approx(curves["val_accuracy"][0])
    study = load_study(run)
    key = f"dashboard:{study.trials[0]._trial_id}:note_str:0"
    note = study._storage.get_study_system_attrs(study._study_id)[key]
    assert "First trial: **linear probe**." in note and "Solved to convergence" in note and "| seed |" not in note
    (run.workdir / "trials" / "0" / "weights.npz").unlink()
    again = trial_weights(run, probe)
    assert are_kept(run.workdir, 0)
    assert all(np.array_equal(again[name], value) for name, value in weights.items())


def test_they_are_named_in_the_leaderboard_and_the_report(run: Run) -> None:
    done = run_headhunt(Path.cwd(), "search", "top", *WITH, "--json")
    rows = json.loads(done.stdout.splitlines()[-1])["trials"]
    assert {row["number"]: row["first"] for row in rows if row["number"] < 3} == dict(enumerate(NAMES))
    assert all(row["first"] is None for row in rows if row["number"] >= 3)
    trained = {row["number"]: TrialConfig.model_validate(row["config"]) for row in rows}
    assert all(trained[each.number] == each.config for each in leaders(run))
    shown = {row["number"]: shown_values(trained[row["number"]], run.features) for row in rows}
    assert shown[0]["optimizer.kind"] == "lbfgs" and not {"schedule.kind", "head.activation"} & shown[0].keys()
    assert (shown[2]["schedule.kind"], shown[2]["schedule.learning_rate"]) == ("constant", "5e-4")
    assert [shown[number]["views.copies"] for number in range(3)] == ["0", "0", "2"]
    whole = [row["number"] for row in rows if row["params"].get("features.parts") in (None, POOLING)]
    assert {name: values["features.parts"] for name, values in shown.items()} == {
        number: "all" if number in whole else "avg" for number in shown
    }
    table = leaders_table.section(run).tables[0]
    assert {row[0].split()[0]: row[table.columns.index("features")] for row in table.rows} == {
        str(number): values["features.parts"] for number, values in shown.items()
    }
    found = section.collect(run)
    assert [row.title for row in found.rows] == [TITLES[name] for name in NAMES]
    assert found.winner is not None and found.winner.number == leaders(run)[0].number
    page = section.section(run)
    assert len(page.tables[0].rows) == 4
    probe = found.rows[0]
    ahead = section.FirstTrials(found.rows, found.winner._replace(number=7, value=(probe.value or 0) + 0.05))
    assert section.verdict(ahead, "val_accuracy") == " The winner is 5.0 points above the linear probe."
    assert "The linear probe wins" in section.verdict(section.FirstTrials(found.rows, probe), "val_accuracy")
    assert section.verdict(section.FirstTrials(found.rows[1:], found.winner), "val_accuracy") == ""


def test_a_study_without_them_has_no_such_section(searched: Run) -> None:
    with pytest.raises(LeftOutError, match=r"set `search.first` for a new study"):
        section.section(searched)


def test_the_probe_is_solved_once_for_all_seeds(run: Run) -> None:
    every = len(leaders(run, 5))
    done = run_headhunt(Path.cwd(), "search", "confirm", *WITH, "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["trained"] == 3 * (every - 1) + 1
    row = next(row for row in result["confirmed"] if row["number"] == 0)
    assert row["values"] == [row["searched"]] * 3


@pytest.mark.parametrize("workers", ["1", "4"])
def test_any_number_of_workers_gives_the_same_study(once: Path, run: Run, workers: str) -> None:
    forget(Path.cwd())
    run_headhunt(Path.cwd(), *COMMAND, "--workers", workers)
    assert everything(Path.cwd()) == everything(once)


def test_two_ray_workers_give_the_same_study(once: Path, run: Run) -> None:
    forget(Path.cwd())
    done = run_headhunt(Path.cwd(), *COMMAND, "--executor", "ray", "--workers", "2")
    assert "Workers: 2 at a time, by Ray on this machine." in done.stderr
    assert {row.workers for row in load_work(run.workdir)} == {2}
    assert everything(Path.cwd()) == everything(once)


@pytest.mark.parametrize(
    "place",
    ["optuna.trial.Trial.set_user_attr", "search.driver.driver.Driver._report", "search.driver.driver.Driver._tell"],
)
def test_a_study_that_was_killed_among_them_goes_on_as_if_it_had_not_been(once: Path, run: Run, place: str) -> None:
    """During the second ask, while values are reported, and after outcomes are recorded."""
    forget(Path.cwd())
    owner, name = place.rsplit(".", 1)
    after = 4 if "attr" in name else 2 if "report" in name else 1
    body = (
        "import os, optuna.trial\nfrom pathlib import Path\nfrom features.run_file import load\n"
        "from search.config import SearchRun\nimport search.driver.driver, search.study\n"
        f"plain, calls = {owner}.{name}, []\n"
        "def kill(self, *arguments):\n"
        f"    calls.append(1)\n    if len(calls) == {after}: os.kill(os.getpid(), 9)\n    return plain(self, *arguments)\n"
        f"{owner}.{name} = kill\n"
        f"raw = {['search.trials=9', *WITH[1::2]]}\n"
        "search.study.run_search(load(SearchRun, Path('headhunt.yaml'), raw))\n"
    )
    done = run_python(body)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run_headhunt(Path.cwd(), *COMMAND)
    assert everything(Path.cwd()) == everything(once)


def test_an_older_study_goes_on_without_them(searched: Run) -> None:
    study = load_study(searched)
    identity = {name: value for name, value in study.user_attrs["identity"].items() if name != "first"}
    study.set_user_attr("identity", identity)
    done = run_headhunt(Path.cwd(), "search", "run", "--trials", "7", "--set", "search.first=[probe]")
    assert "No first trials (probe): the study was started without them and continues as it is." in done.stderr
    assert [name_of(trial) for trial in load_study(searched).trials] == [None] * 7


def test_a_promoted_probe_is_exported_and_its_configuration_solves_it_again(run: Run) -> None:
    here = Path.cwd()
    done = run_headhunt(here, "train", "promote", "--trial", "0", *WITH, "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    (promotion,) = result["promotions"]
    assert promotion["frozen"]["val_accuracy"] == pytest.approx(load_study(run).trials[0].value)
    said = result["verdict"]["text"]
    assert said.startswith("Trial 0 (linear probe), ")
    if promotion["stage"] == "frozen":
        assert "It is the linear probe itself: no head that was trained is better." in said
        assert "linear probe (" not in said.removeprefix("Trial 0 (linear probe)") and "gained anything" not in said
    done = run_headhunt(here, "train", "export", "--trial", "0", "--format", "keras,config", *WITH, "--json")
    exported = json.loads(done.stdout.splitlines()[-1])
    assert exported["formats"]["keras"]["max_abs_difference"] < 1e-3
    assert "linear probe, solved by L-BFGS" in Path(exported["folder"], "model_card.md").read_text()
    file = exported["formats"]["config"]["path"]
    for stage in (("features", "prepare"), ("features", "cache")):
        run_headhunt(here, *stage, "-c", file)
    again = run_headhunt(here, "search", "run", "-c", file, "--json")
    best = json.loads(again.stdout.splitlines()[-1])["best"]
    assert best["value"] == load_study(run).trials[0].value


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (["probe", "probe"], "probe is listed twice; list each of probe, known_good, notebook at most once"),
        (["best"], "'probe', 'known_good' or 'notebook'"),
    ],
)
def test_a_wrong_list_is_refused(first: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SearchConfig.model_validate({"first": first})


def test_any_order_and_part_of_them_may_be_asked_for() -> None:
    assert SearchConfig().first == NAMES
    for first in ([], ["notebook"], ["notebook", "probe"]):
        assert list(SearchConfig.model_validate({"first": first}).first) == first


def test_features_that_say_nothing_are_said_when_a_search_starts(searched: Run) -> None:
    cache = cache_for(searched)
    known = cache.folder / "variation.json"
    known.write_text(known.read_text().replace('"constant": 0', '"constant": 3'))
    done = run_headhunt(Path.cwd(), "search", "run", "--trials", "7")
    photos = cache.manifest.splits["train"]
    assert done.stderr.count(f"3 of 6 features are constant over the {photos} clean training photos.") == 1


def test_a_probe_that_does_not_converge_is_no_failure_and_is_said(searched: Run) -> None:
    forget(Path.cwd())
    program = """
import sys
import features.audit.probe
from headhunt import cli
features.audit.probe.ITERATIONS = 1
sys.argv = ["headhunt", "search", "run", "--trials", "1", "--set", "search.first=[probe]"]
cli.main()
"""
    done = run_python(program)
    assert done.returncode == 0, done.stderr
    said = "Trial 0: the linear probe did not converge in 4 iterations (penalty "
    assert done.stderr.count(said) == 1
    (trial,) = load_study(searched).trials
    assert trial.state.name == "COMPLETE"
    assert trial.user_attrs["doubts"][0].startswith("the linear probe did not converge")
    study = load_study(searched)
    note = str(study._storage.get_study_system_attrs(study._study_id))
    assert "did not converge" in note and "to convergence" not in note


def test_the_words_for_a_probe() -> None:
    probe = first_config("probe", Views(), 5)
    assert describe(probe) == {
        "head": "linear probe, no hidden layer",
        "optimizer": "lbfgs, L2 by cross-validation over 3 folds",
        "views": "clean photos",
    }
    with pytest.raises(ValidationError, match="allowed: adam, adamw, sgd, rmsprop"):
        SearchSpace(optimizer={"kind": "lbfgs"})
