"""A trial in the dashboard: attributes, one picture, one note; also after a kill."""

from __future__ import annotations

import io
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna_dashboard import get_note, save_note
from PIL import Image

from reports.config import Run
from search.candidate import Candidate, Outcome
from search.heads import HeadConfig
from search.leaderboard import load_study
from search.review.curves_image import HEIGHT, WIDTH, collect, draw
from search.review.describe import described
from search.review.notes import artifact_id, artifact_store, draw_pictures, note, write_reviews
from search.trial import EpochMetrics, HypermodelChoice, TrialConfig, TrialResult
from tests.conftest import run_headhunt
from tests.forks import run_python

CONFIG = TrialConfig(head=HeadConfig(units=(256,), dropout=0.3, l2=1e-4), epochs=3)
COMPLETE = Outcome("COMPLETE", 0.5)
DESCRIBE = partial(described, classes=50)


def curves(epochs: int = 3, rate: float = 1e-3) -> tuple[EpochMetrics, ...]:
    numbers = range(1, epochs + 1)
    return tuple(
        EpochMetrics(epoch, 2.0 / epoch, 0.2 * epoch, 3.0 / epoch, 0.1 * epoch, 0.3, rate) for epoch in numbers
    )


def ended(trial: optuna.Trial, result: TrialResult | None = None, **changed: Any) -> Candidate[TrialConfig]:
    result = result or TrialResult(curves(), 3, {}, None, 1.0)
    return replace(Candidate(trial, CONFIG, result=result, outcome=COMPLETE, seconds=1.25), **changed)


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(study_name="x")


def files(workdir: Path) -> list[str]:
    return sorted(path.name for path in (workdir / "artifacts").iterdir())


def test_every_trial_of_a_study_has_them(searched: Run) -> None:
    study = load_study(searched)
    for trial in study.trials:
        (linked,) = get_all_artifact_meta(trial, storage=study._storage)
        assert (linked.filename, linked.mimetype) == ("curves.png", "image/png")
        with artifact_store(Path("run")).open_reader(linked.artifact_id) as file, Image.open(file) as picture:
            assert picture.size == (WIDTH, HEIGHT)
        facts = trial.user_attrs
        body = get_note(optuna.trial.Trial(study, trial._trial_id))
        assert body.startswith(f"**val_accuracy {trial.value:.4f}** at epoch {facts['best_epoch']}. ")
        assert f"/artifacts/{study._study_id}/{trial._trial_id}/{linked.artifact_id})" in body
        assert f"| head | {facts['head']} |" in body
        assert f"| schedule | {facts['schedule']} |" in body
        assert facts["head"].endswith("dropout 0.2")
        assert facts["optimizer"] == "adam"
        assert facts["epochs"] == 4
        assert facts["seconds"] > 0
    assert len(files(Path("run"))) == 6


def test_again_replaces_what_is_there_and_leaves_a_note_that_somebody_wrote(
    tmp_path: Path, study: optuna.Study
) -> None:
    first, second = study.ask(), study.ask()
    save_note(second, "mine")
    for _ in range(2):
        both = [ended(first), ended(second)]
        draw_pictures(tmp_path, "x", "val_accuracy", both)
        write_reviews(study, "val_accuracy", both, DESCRIBE)
    assert files(tmp_path) == sorted([artifact_id("x", 0), artifact_id("x", 1)])
    assert [len(get_all_artifact_meta(trial, storage=study._storage)) for trial in study.trials] == [1, 1]
    assert get_note(first).startswith("**val_accuracy 0.3000** at epoch 3")
    assert get_note(second) == "mine"


def test_a_trial_that_failed_before_its_first_epoch_has_no_picture(tmp_path: Path, study: optuna.Study) -> None:
    trial, why = study.ask(), "the loss is not finite after epoch 1 (learning rate 10)"
    failed = ended(trial, TrialResult((), 0, {}, why, 1.0), outcome=Outcome("FAIL", reason=why))
    draw_pictures(tmp_path, "x", "val_accuracy", [failed])
    write_reviews(study, "val_accuracy", [failed], DESCRIBE)
    assert files(tmp_path) == []
    assert get_all_artifact_meta(trial) == []
    assert get_note(trial).startswith(f"**Failed** after 0 of 3 epochs: {why}; 1.25 s.\n")
    assert "![" not in get_note(trial)


def test_a_pruned_trial_says_so(study: optuna.Study) -> None:
    pruned = ended(study.ask(), TrialResult(curves(2), 2, {}, None, 1.0), outcome=Outcome("PRUNED"))
    assert note(pruned, DESCRIBE(CONFIG), "val_loss", None).startswith(
        "**val_loss 1.5000** at epoch 2, top-5 accuracy 0.3000. Pruned after 2 of 3 epochs; 1.25 s.\n"
    )


def test_top5_is_left_out_of_few_classes(study: optuna.Study) -> None:
    done = ended(study.ask())
    assert ", top-5 accuracy 0.3000. " in note(done, described(CONFIG, 6), "val_accuracy", None)
    assert "top-5" not in note(done, described(CONFIG, 5), "val_accuracy", None)


def test_a_long_note_is_whole_and_no_value_breaks_its_table(study: optuna.Study) -> None:
    values = {"kind": "a|b", "text": "x" * 5000}
    config = TrialConfig(hypermodel=HypermodelChoice(function="heads:build", values=values), epochs=3)
    trial = study.ask()
    write_reviews(study, "val_accuracy", [ended(trial, config=config)], DESCRIBE)
    assert f"| values | kind a\\|b, text {'x' * 5000} |" in get_note(trial)
    assert trial.user_attrs["hypermodel"] == "heads:build"


def test_scales_are_few() -> None:
    assert collect(curves(), 3, 30, "val_accuracy").scales == ("val_accuracy", 30, 1.0, -4, -2)
    assert collect(curves(rate=3e-3), 3, 30, "val_loss").scales == ("val_loss", 30, 5.0, -4, -2)
    assert collect(curves(rate=0.0), 3, 3, "val_accuracy").scales[3:] == (-6, 0)


@pytest.mark.parametrize("objective", ["val_accuracy", "val_top5_accuracy", "val_loss"])
def test_pictures_differ_by_their_curves_alone(objective: Any) -> None:
    missing = [metrics._replace(accuracy=float("nan")) for metrics in curves(1)]
    shown = [draw(collect(some, 1, 30, objective)) for some in (curves(), curves(1), missing, curves())]
    assert shown[0] == shown[3] != shown[1]
    with Image.open(io.BytesIO(shown[1])) as picture:
        assert picture.size == (WIDTH, HEIGHT)
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 3


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_kill_between_picture_and_outcome_leaves_one_picture_and_one_note(searched: Run, storage: str) -> None:
    body = (
        "import os\nfrom pathlib import Path\nfrom features.run_file import load\nfrom search.config import SearchRun\n"
        "import search.driver.driver, search.study\nwrite, calls = search.driver.driver.write_reviews, []\n"
        "def kill(*arguments):\n"
        "    write(*arguments)\n    calls.append(1)\n    if len(calls) == 2: os.kill(os.getpid(), 9)\n"
        "search.driver.driver.write_reviews = kill\n"
        f"run = load(SearchRun, Path('headhunt.yaml'), ['search.storage={storage}'])\nsearch.study.run_search(run)\n"
    )
    (Path("run") / "study.db").unlink()
    for file in Path("run/artifacts").iterdir():
        file.unlink()
    done = run_python(body)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(files(Path("run"))) == 6
    run_headhunt(Path.cwd(), "search", "run", "--set", f"search.storage={storage}")
    run = searched.model_copy(update={"search": searched.search.model_copy(update={"storage": storage})})
    study = load_study(run)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6
    for trial in study.trials:
        assert len(get_all_artifact_meta(trial, storage=study._storage)) == 1
        assert f"at epoch {trial.user_attrs['best_epoch']}," in get_note(optuna.trial.Trial(study, trial._trial_id))
    assert len(files(Path("run"))) == 6
