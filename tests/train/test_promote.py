"""Promotion: parity with the cache, resuming fine-tuning, and the files written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

import train.finetuning.finetune
import train.promotion.worker
from features.cache.feature_cache import cache_for
from features.cache.shards import Shard, read_shard, write_shard
from features.runtime.errors import CacheError, HeadhuntError, UsageError
from features.runtime.workers.gpus import find_gpus
from reports.config import Run
from search.leaderboard import leaders, load_study
from search.records import load_weights
from search.retrain import trial_weights
from train.photos import Photos
from train.promotion.artifact import find_promotion
from train.promotion.promote import promote


def change(run: Run, **finetune: Any) -> Run:
    tuning = run.train.finetune.model_copy(update=finetune)
    return run.model_copy(update={"train": run.train.model_copy(update={"finetune": tuning})})


def test_a_promotion_measures_checks_and_writes_everything(searched: Run) -> None:
    (found,) = promote(searched)
    promotion = found.summary()
    leader = leaders(searched, 1)[0]
    assert promotion.trial == leader.number
    assert promotion.frozen.val_accuracy == pytest.approx(leader.value, abs=1e-6)
    folder = Path(promotion.folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["parity"]["max_abs_difference"] <= metrics["parity"]["tolerance"]
    assert len(metrics["unfrozen"]) == (metrics["best_epoch"] > 0)
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    assert history["val_accuracy"][0] == pytest.approx(leader.value, abs=1e-6)
    assert metrics["tuned"]["val"]["accuracy"] >= history["val_accuracy"].max() - 1e-6
    table = pd.read_csv(folder / "predictions.csv")
    for split, found in table.groupby("split"):
        share = (found["label"] == found["predicted_1"]).mean()
        assert metrics["tuned"][split]["accuracy"] == pytest.approx(share)
    assert set(table["split"]) == {"val", "test"}
    classes = pd.read_csv(folder / "per_class.csv")
    assert classes["class_name"].tolist() == ["a", "b", "c"]
    for split in ("train", "val", "test"):
        weighted = (classes[f"{split}_accuracy"] * classes[f"{split}_images"]).sum() / classes[f"{split}_images"].sum()
        assert weighted == pytest.approx(metrics["tuned"][split]["accuracy"])
        assert 0 <= metrics["tuned"][split]["ece"] <= 1


def test_test_photos_are_looked_at_after_every_choice_and_once(searched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    finetune, pixels, features = (
        train.promotion.worker.finetune,
        Photos.inputs,
        train.promotion.worker._head_probabilities,
    )

    def tuned(*arguments: Any) -> Any:
        done = finetune(*arguments)
        seen.append("chosen")
        return done

    def looked(photos: Photos, positions: Any) -> Any:
        seen.append(f"{photos.split} photos")
        return pixels(photos, positions)

    def measured(head: Any, cache: Any, split: str) -> Any:
        seen.append(f"{split} features")
        return features(head, cache, split)

    monkeypatch.setattr(train.promotion.worker, "finetune", tuned)
    monkeypatch.setattr(Photos, "inputs", looked)
    monkeypatch.setattr(train.promotion.worker, "_head_probabilities", measured)
    promote(searched)
    before, after = seen[: seen.index("chosen")], seen[seen.index("chosen") :]
    assert not [what for what in before if what.startswith("test")]
    assert after.count("test features") == 1
    assert after.count("test photos") == 1  # four photos: one batch


def test_a_finished_promotion_is_not_repeated_and_another_recipe_makes_another_beside_it(searched: Run) -> None:
    first = promote(searched)
    file = first[0].folder / "metrics.json"
    written = file.stat().st_mtime_ns
    assert promote(searched) == first
    (second,) = promote(change(searched, epochs=1))
    assert (second.trial, second.epochs, first[0].epochs) == (first[0].trial, 1, 3)
    assert file.stat().st_mtime_ns == written
    assert {first[0].folder, second.folder} == set((searched.workdir / "promotions").glob("[0-9]*"))


def test_fine_tuning_goes_on_after_an_interruption_with_the_same_history(
    searched: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (undisturbed,) = promote(searched)
    folder = undisturbed.folder
    history = pd.read_csv(folder / "history.csv")
    for file in folder.iterdir():
        file.unlink()
    fit, calls = train.finetuning.finetune._Phase._fit, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(train.finetuning.finetune._Phase, "_fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        promote(searched)
    assert not (folder / "metrics.json").exists()
    assert pd.read_csv(folder / "history.csv")["epoch"].tolist() == [0, 1]
    promote(searched)
    assert len(calls) == 4  # the first epoch, the interrupted one, and the remaining two
    columns = [name for name in history if name != "seconds"]
    pd.testing.assert_frame_equal(pd.read_csv(folder / "history.csv")[columns], history[columns], rtol=1e-5)
    again = find_promotion(searched, undisturbed.trial).tuned.test
    assert again is not None and undisturbed.tuned.test is not None
    assert again.model_dump() == pytest.approx(undisturbed.tuned.test.model_dump(), rel=1e-5)


def test_a_network_that_differs_from_its_head_is_refused(searched: Run) -> None:
    cache = cache_for(searched)
    for entry in cache.manifest.shards:
        if entry.split == "val":
            path = cache.folder / entry.file
            shard = read_shard(path, entry.records, cache.feature_shape, cache.manifest.dtype)
            other = Shard(np.array(shard.features) * 3 + 1, shard.labels.copy(), shard.images.copy())
            write_shard(path, other)
    with pytest.raises(HeadhuntError, match=r"does not match its head on the cached features: probabilities differ"):
        promote(searched)


def test_a_damaged_shard_ends_the_command_and_fails_no_promotion(searched: Run) -> None:
    shard = cache_for(searched).folder / "train-c000-00000-of-00001.tfrecord"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CacheError, match=rf"the shard .*{shard.name} is damaged .*Run `headhunt features repair`"):
        promote(searched)
    study = optuna.load_study(study_name="tiny-promotions", storage="sqlite:///run/study.db")
    assert [trial.state.name for trial in study.trials if trial.state.name == "FAIL"] == []


def test_weights_that_were_not_kept_are_trained_again_from_the_trials_seed(
    searched: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    leader = leaders(searched, 1)[0]
    kept = load_weights(searched.workdir, leader.number)
    file = searched.workdir / "trials" / str(leader.number) / "weights.npz"
    whole = file.read_bytes()
    for lost in ("were not kept", "were damaged"):
        file.unlink()
        if lost == "were damaged":
            file.write_bytes(whole[:200])
        again = trial_weights(searched, leader)
        assert again.keys() == kept.keys()
        assert all(np.array_equal(again[name], kept[name]) for name in kept)
        assert file.read_bytes() == whole
        told = capsys.readouterr().err
        assert f"The weights of trial {leader.number} {lost}; retrained from its seed, it reaches val_accuracy" in told
        assert ("weights.npz is damaged (" in told) == (lost == "were damaged")
    file.unlink()
    with pytest.raises(HeadhuntError, match=r"after retraining it reaches val_accuracy [01]\.\d{4} instead of 9\.0000"):
        trial_weights(searched, replace(leader, value=9.0))
    assert not file.exists()


def test_an_unknown_trial_names_the_ones_there_are(searched: Run) -> None:
    with pytest.raises(
        UsageError, match=r"trial 77 is not a completed trial of the study 'tiny'. The best completed trials: \d"
    ):
        promote(searched, [77])


def test_gpus_that_are_not_there_are_refused_before_the_promotions_have_a_study(
    searched: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # also where there is one
    find_gpus.cache_clear()
    workers = searched.promotion_workers.model_copy(update={"gpus": 1.0})
    with pytest.raises(UsageError, match=r"each worker needs 1 GPU"):
        promote(searched.model_copy(update={"train": searched.train.model_copy(update={"workers": workers})}))
    assert optuna.get_all_study_names("sqlite:///run/study.db") == ["tiny"]


def test_a_changed_cache_is_refused(searched: Run) -> None:
    features = searched.features.model_copy(update={"seed": 1})
    with pytest.raises(
        HeadhuntError, match=r"no feature cache for this configuration; the closest, \w{16}, differs in seed"
    ):
        promote(searched.model_copy(update={"features": features}))


def test_a_loss_that_is_not_finite_stops_at_its_step_with_its_history(searched: Run) -> None:
    with pytest.raises(
        HeadhuntError,
        match=r"the loss is not finite at step \d+ of \d+ of epoch (\d).*Lower `train.finetune.learning_rate`. The weights and",
    ) as raised:
        promote(change(searched, learning_rate=1e30, epochs=6))
    epoch = int(str(raised.value).partition("of epoch ")[2][0])
    (history,) = searched.workdir.glob("promotions/*/history.csv")
    assert pd.read_csv(history)["epoch"].tolist() == list(range(epoch))


def test_a_network_that_no_epoch_made_better_is_called_frozen(
    searched: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []

    def finetune(*arguments: Any) -> Any:
        given.append(arguments[-1])
        return train.finetuning.finetune.finetune(*arguments)

    monkeypatch.setattr(train.promotion.worker, "finetune", finetune)
    still = change(searched, epochs=1, learning_rate=1e-30)  # too small to move a weight
    by_loss = still.model_copy(update={"search": still.search.model_copy(update={"objective": "val_loss"})})
    study = load_study(searched)
    study.set_user_attr("identity", study.user_attrs["identity"] | {"objective": "val_loss"})
    (promotion,) = promote(by_loss)
    assert (promotion.stage, promotion.is_head_alone, promotion.unfrozen) == ("frozen", False, [])
    told = " ".join(capsys.readouterr().err.split())
    assert "No epoch of fine-tuning was better than the frozen network, which is kept" in told
    assert given == ["val_loss"]


def test_a_disk_that_is_full_keeps_the_checkpoint_before(searched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (undisturbed,) = promote(searched)
    folder = undisturbed.folder
    for file in folder.iterdir():
        file.unlink()
    savez, calls = np.savez, []

    def full(file: Any, **arrays: Any) -> None:
        calls.append(file)
        with Path("/dev/full").open("wb") as no_space:
            savez(no_space if len(calls) == 2 else file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(
        HeadhuntError,
        match=r"cannot write .*checkpoint.npz: No space left.*checkpoint of epoch 0 is intact; rerun the same command",
    ):
        promote(searched)
    promote(searched)
    again = find_promotion(searched, undisturbed.trial).tuned.test
    assert again is not None and undisturbed.tuned.test is not None
    assert again.model_dump() == pytest.approx(undisturbed.tuned.test.model_dump(), rel=1e-5)
