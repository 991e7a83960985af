"""Several promotions at once on Ray workers: what is recorded next to the search, and the state after `kill -9`."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml

from features.runtime.errors import HeadhuntError
from reports.config import Run
from search.leaderboard import leaders
from tests.conftest import run_headhunt
from tests.kills import SEED, descendants
from train.finetuning.activations import ActivationViews
from train.promotion.artifact import find_promotion
from train.promotion.promote import promote

KILLS = 8

RAY = ["--set", "train.workers.count=2", "--set", "train.workers.cpus=1"]


def promotions(run: Run) -> list[optuna.trial.FrozenTrial]:
    storage = f"sqlite:///{run.workdir}/study.db"
    return optuna.load_study(study_name=f"{run.name}-promotions", storage=storage).trials


def change(run: Run, **train: Any) -> Run:
    return run.model_copy(update={"train": run.train.model_copy(update=train)})


def test_two_promotions_at_once_are_trials_of_a_study_next_to_the_search(searched: Run) -> None:
    done = run_headhunt(Path(), "train", "promote", "--top", "2", *RAY, "--json")
    found = json.loads(done.stdout.splitlines()[-1])["promotions"]
    best = leaders(searched, 2)
    assert [row["trial"] for row in found] == [leader.number for leader in best]
    recorded = {trial.user_attrs["trial"]: trial for trial in promotions(searched)}
    for leader, row in zip(best, found, strict=True):
        trial = recorded[leader.number]
        assert trial.state == optuna.trial.TrialState.COMPLETE
        assert trial.value == row["tuned"]["val_accuracy"]
        assert trial.params == leader.params
        assert trial.user_attrs["stage"] == row["stage"]
        history = pd.read_csv(Path(row["folder"]) / "history.csv")
        assert trial.intermediate_values == dict(zip(history["epoch"], history["val_accuracy"], strict=True))
        assert f"Trial {leader.number}: epoch 3/3: loss" in done.stderr
        assert f"Trial {leader.number}: frozen validation accuracy" in done.stderr
    again = run_headhunt(Path(), "train", "promote", "--top", "2", *RAY, "--json")
    assert json.loads(again.stdout.splitlines()[-1])["promotions"] == found
    assert len(promotions(searched)) == 2


def test_one_that_fails_does_not_stop_the_others_and_is_recorded_with_its_reason(searched: Run) -> None:
    best = leaders(searched)[0]
    worst = next(leader for leader in leaders(searched) if leader.config.head.units != best.config.head.units)
    file = searched.workdir / "trials" / str(worst.number) / "weights.npz"
    other = searched.workdir / "trials" / str(best.number) / "weights.npz"
    kept = file.read_bytes()
    file.write_bytes(other.read_bytes())  # weights of another head
    with pytest.raises(Exception, match="the stored weights belong to another head"):
        promote(searched, [worst.number, best.number])
    assert find_promotion(searched, best.number).trial == best.number
    states = {trial.user_attrs["trial"]: trial for trial in promotions(searched)}
    assert states[best.number].state.name == "COMPLETE"
    assert states[worst.number].state.name == "FAIL"
    assert "belong to another head" in states[worst.number].user_attrs["reason"]
    file.write_bytes(kept)
    promote(searched, [worst.number])
    assert [trial.state.name for trial in promotions(searched)].count("COMPLETE") == 2


def test_an_interrupted_promotion_is_one_trial_and_another_configuration_is_another(
    searched: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train.finetuning.finetune

    fit = train.finetuning.finetune._Phase._fit

    def interrupted(*arguments: Any) -> Any:
        if arguments[2] == 1:
            raise KeyboardInterrupt
        return fit(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train.finetuning.finetune._Phase, "_fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            promote(searched)
    (trial,) = promotions(searched)
    assert (trial.state.name, list(trial.intermediate_values)) == ("RUNNING", [0, 1])
    shorter = change(searched, finetune=searched.train.finetune.model_copy(update={"epochs": 1}))
    promote(shorter)
    first, second = promotions(searched)
    assert (first.state.name, second.state.name) == ("FAIL", "COMPLETE")
    assert "the configuration has changed since" in first.user_attrs["reason"]
    assert list(second.intermediate_values) == [0, 1]


def test_an_unexpected_fault_of_one_is_a_reason_and_a_traceback_and_the_others_go_on(
    searched: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import train.promotion.worker

    first = leaders(searched)[0]
    second = next(leader for leader in leaders(searched) if leader.config.head != first.config.head)
    build = train.promotion.worker.trial_head

    def broken(config: Any, *rest: Any) -> Any:
        if config.head == first.config.head:
            raise MemoryError("out of memory on the device")
        return build(config, *rest)

    monkeypatch.setattr(train.promotion.worker, "trial_head", broken)
    with pytest.raises(
        HeadhuntError, match=rf"the promotion of trial {first.number} failed: MemoryError: out of memory"
    ):
        promote(searched, [first.number, second.number])
    states = {trial.user_attrs["trial"]: trial.state.name for trial in promotions(searched)}
    assert states == {first.number: "FAIL", second.number: "COMPLETE"}
    (folder,) = searched.workdir.glob(f"promotions/{first.number}-*")
    assert "MemoryError: out of memory on the device" in (folder / "fault.txt").read_text()
    assert "the promotion of trial" in capsys.readouterr().err


def test_going_back_to_a_recipe_repeats_nothing_and_leaves_no_trial_running(searched: Run) -> None:
    shorter = change(searched, finetune=searched.train.finetune.model_copy(update={"epochs": 1}))
    for run in (shorter, searched, shorter):
        promote(run)
        assert {trial.state.name for trial in promotions(searched)} == {"COMPLETE"}
    assert [list(trial.intermediate_values) for trial in promotions(searched)] == [[0, 1], [0, 1, 2, 3]]


def test_what_a_killed_driver_did_not_record_is_recorded_by_the_next(searched: Run) -> None:
    promote(searched)
    (before,) = promotions(searched)
    storage = f"sqlite:///{searched.workdir}/study.db"
    optuna.delete_study(study_name=f"{searched.name}-promotions", storage=storage)
    promote(searched)
    (after,) = promotions(searched)
    assert (after.state, after.value, after.intermediate_values) == (
        before.state,
        before.value,
        before.intermediate_values,
    )


def test_promotion_from_cached_activations_goes_through_every_stage(searched: Run) -> None:
    tuning = searched.train.finetune.model_copy(update={"activation_copies": 2})
    (found,) = promote(change(searched, finetune=tuning))
    history = pd.read_csv(found.folder / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert history["val_accuracy"][0] == pytest.approx(found.frozen.val.accuracy, abs=1e-6)
    manifests = [json.loads(path.read_text()) for path in (searched.workdir / "cache").glob("*/manifest.json")]
    assert len({manifest["key_parts"]["cut"] for manifest in manifests} - {None}) == 1
    assert found.finetune.activation_copies == 2
    gc.collect()
    held = [one for one in gc.get_objects() if isinstance(one, ActivationViews)]
    assert held == []  # a worker makes one promotion after another


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["local", "ray"])
def test_kills_at_random_moments_leave_the_history_of_an_undisturbed_promotion(
    searched: Run, workers: str, tmp_path: Path
) -> None:
    moments = random.Random(SEED)
    print(f"HEADHUNT_KILL_SEED={SEED}")
    raw = yaml.safe_load(Path("headhunt.yaml").read_text())
    phases = [
        {"unfreeze": "head", "epochs": 60, "learning_rate": 1e-3},
        {"unfreeze": 1, "epochs": 60, "learning_rate": 1e-3},
    ]
    raw["train"] = {"top": 2, "finetune": {"batch_size": 4, "phases": phases}, "workers": {"executor": workers}}
    if workers == "ray":
        raw["train"]["workers"] |= {"count": 2, "cpus": 1}
    Path("headhunt.yaml").write_text(yaml.safe_dump(raw))
    subprocess.run(["cp", "-r", ".", str(tmp_path / "calm")], check=True)
    run_headhunt(tmp_path / "calm", "train", "promote")
    command = [str(Path(sys.executable).with_name("headhunt")), "train", "promote"]
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    started, killed = time.monotonic(), 0
    while True:
        with (tmp_path / "said.txt").open("a") as said:
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        try:
            assert process.wait(moments.uniform(9, 14) + 8 * (workers == "ray") if killed < KILLS else 500) == 0
            break
        except subprocess.TimeoutExpired:
            below = [pid for pid, line in descendants(process.pid) if "ray" in line]
            alone = [pid for pid, line in descendants(process.pid) if "ray::" in line]
            worker = bool(alone) and moments.random() < 0.5
            for victim in [moments.choice(alone)] if worker else [process.pid, *below]:
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            killed += 1
            status = process.wait(500)
            if worker:  # its task was rerun
                assert status == 0
                break
    print(f"{killed} kills in {time.monotonic() - started:.0f} s")
    assert killed
    for calm in sorted((tmp_path / "calm").glob("run/promotions/*/history.csv")):
        mine = Path(*calm.parts[-4:])
        columns = [name for name in pd.read_csv(calm) if name != "seconds"]
        pd.testing.assert_frame_equal(pd.read_csv(mine)[columns], pd.read_csv(calm)[columns], rtol=1e-5)
    found = promotions(searched)
    assert [trial.state.name for trial in found] == ["COMPLETE", "COMPLETE"]
    for trial in found:
        history = pd.read_csv(Path(trial.user_attrs["folder"]) / "history.csv")
        assert trial.intermediate_values == dict(zip(history["epoch"], history["val_accuracy"], strict=True))
