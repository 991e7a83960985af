"""Exports: the network in the stock runtime of every format, and a configuration that can be rerun."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import train.exports.export
import train.exports.record
from features.dataset.index import load_index
from features.run_file import load
from features.runtime.atomic import only_process
from features.runtime.errors import HeadhuntError, UsageError
from reports.config import Run
from search.leaderboard import leaders
from train.exports.convert import CONVERTERS
from train.exports.export import FORMATS, export
from train.exports.record import BundleFiles
from train.exports.runtimes import RUNTIMES, load_model
from train.photos import Photos
from train.promotion.artifact import find_promotion, find_promotions
from train.promotion.promote import promote


def test_a_bundle(promoted: Run) -> None:
    result = export(promoted, None)
    number = result.trial
    assert list(result.formats) == ["keras", "savedmodel", "onnx", "litert", "config"] == list(FORMATS)
    folder = Path(result.folder)
    photos = Photos(promoted, load_index(promoted), "val").inputs([0, 1, 2])
    expected = load_model(folder / "model.keras", "keras").run(photos)
    for name in RUNTIMES:
        assert result.formats[name].max_abs_difference < 1e-5, name
        model = load_model(Path(result.formats[name].path), name)
        assert (model.input_shape, model.input_dtype) == ((None, 32, 32, 3), "uint8"), name
        for batch in (photos, photos[:1], photos[1:]):  # any batch size, in any order
            found = model.run(batch)
            assert found.shape == (len(batch), 3) and found.dtype == np.float32, name
            assert found.sum(1) == pytest.approx(1, abs=1e-5), name
        assert model.run(photos) == pytest.approx(expected, abs=1e-5), name
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *(runtime.file for runtime in RUNTIMES.values()),
        *("headhunt.yaml", "optuna.json", "keras_tuner.json", "labels.txt", "model_card.md", ".bundle.json"),
    }
    assert (folder / "labels.txt").read_text() == "a\nb\nc\n"
    card = (folder / "model_card.md").read_text()
    (tested,) = [line for line in card.splitlines() if line.startswith("| fine-tuned | test |")]
    assert re.search(r"\| \d+\.\d % \(\d+\.\d % to \d+\.\d %\) \|", tested)
    assert "| stage | split | top-1 | loss | ECE |\n|---|---|---|---|---|\n" in card  # no top-5 for three classes
    assert card.splitlines()[2] == result.verdict.text
    assert "The test photos were evaluated 2 times, on 2 models; test_ledger.csv lists" in card
    (chose,) = [line for line in card.splitlines() if line.startswith("| fine-tuned | val |")]
    assert re.search(r"\| \d+\.\d % \| ", chose)  # no interval: validation chose it
    again = load(Run, folder / "headhunt.yaml")
    leader = leaders(promoted, 1)[0]
    assert again.search.trials == 1
    assert again.search.space.size() == 1
    assert again.search.space.schedule["learning_rate"] == leader.config.schedule.learning_rate
    assert again.workdir == Path(f"run-trial-{number}")
    assert again.features == promoted.features


def test_the_hyperparameters_are_taken_by_optuna_and_keras_tuner(promoted: Run) -> None:
    import keras_tuner
    import optuna

    written = export(promoted, None, ["config"]).formats["config"]
    leader = leaders(promoted, 1)[0]
    stored = json.loads(Path(written.optuna).read_text())
    assert (stored["study"], stored["trial"], stored["value"]) == ("tiny", leader.number, leader.value)
    study = optuna.create_study()
    study.enqueue_trial(stored["params"])
    asked = study.ask(
        {
            name: optuna.distributions.json_to_distribution(json.dumps(distribution))
            for name, distribution in stored["distributions"].items()
        }
    )
    assert asked.params == leader.params == stored["params"]
    found = keras_tuner.HyperParameters.from_config(json.loads(Path(written.keras_tuner).read_text()))
    assert found.values == leader.params
    rate = found.Float("schedule.learning_rate", 1e-4, 1e-2, sampling="log")
    assert rate == leader.params["schedule.learning_rate"]


def test_nothing_promoted(searched: Run) -> None:
    with pytest.raises(UsageError, match=r"nothing is promoted in run. Run `headhunt train promote`"):
        export(searched, None, ["keras"])
    with pytest.raises(
        UsageError, match=r"trial 3 has no finished promotion in .*Run `headhunt train promote --trial 3`"
    ):
        export(searched, 3, ["keras"])


def test_an_unknown_format(searched: Run) -> None:
    with pytest.raises(
        UsageError, match=r"--format: received 'onxx'; allowed: keras, savedmodel, onnx, litert, config"
    ):
        export(searched, None, ["keras", "onxx"])
    with pytest.raises(UsageError, match=r"--format: received ''; allowed: keras"):
        export(searched, None, [])


def test_without_the_extra_its_formats_are_left_out_aloud_and_refused_by_name(
    promoted: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("tf2onnx", "ai_edge_litert"):
        monkeypatch.setitem(sys.modules, module, None)
    assert list(export(promoted, None).formats) == ["keras", "savedmodel", "config"]
    assert (
        "Skipped onnx and litert: tf2onnx and ai-edge-litert must be installed. Run `pip install 'headhunt[export]'`, then "
        "`headhunt train export`." in capsys.readouterr().err
    )
    with pytest.raises(
        UsageError, match=r"--format: onnx needs tf2onnx, not installed. Run `pip install 'headhunt\[export\]'`"
    ):
        export(promoted, None, ["onnx"])


def test_a_model_that_is_not_the_promoted_one_is_refused(promoted: Run) -> None:
    (promotion,) = promote(promoted)
    number = promotion.trial
    import keras

    file = promotion.folder / "model.keras"
    model = keras.saving.load_model(file)
    model.get_layer("head").get_layer("classifier").bias.assign([3.0, 0.0, -3.0])
    model.save(file)
    for name in RUNTIMES:
        with pytest.raises(
            HeadhuntError, match=r"its predictions differ from the promotion's: probabilities differ by"
        ):
            export(promoted, number, [name])
    folder = Path("run") / "exports" / str(number)
    names = {path.name for path in folder.iterdir()}
    assert names == set()  # neither the differing file nor a partial one


@pytest.mark.parametrize("damage", ["truncated", "one bit", "a folder", "another network"])
def test_a_damaged_promotion_does_not_cost_its_exports(promoted: Run, damage: str) -> None:
    folder = Path(export(promoted, None, ["keras", "config"]).folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (promotion,) = find_promotions(promoted)
    file = promotion.folder / "model.keras"
    content = bytearray(file.read_bytes())
    match damage:
        case "truncated":
            file.write_bytes(content[:3000])
            reason = "is damaged (it is truncated or not a zip archive)"
        case "one bit":
            content[content.index(b"\x89HDF") + 5000] ^= 1  # within the weights
            file.write_bytes(content)
            reason = "is damaged (the checksum of its model.weights.h5 is wrong)"
        case "a folder":
            file.unlink()
            file.mkdir()
            reason = "is damaged (it is a folder)"
        case _:
            import keras

            model = keras.saving.load_model(file)
            model.get_layer("head").get_layer("classifier").bias.assign([3.0, 0.0, -3.0])
            model.save(file)
            reason = "is not the promoted network: its predictions differ from the promotion's: probabilities differ by"
    with pytest.raises(HeadhuntError, match=re.escape(f"{file} {reason}")) as error:
        export(promoted, None, ["onnx"])
    again = f"Delete {promotion.folder}, then rerun `headhunt train promote --trial {promotion.trial}`."
    assert str(error.value).endswith(again)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_export_that_cannot_be_loaded_is_named(promoted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONVERTERS, "onnx", lambda source, target: target.write_bytes(b"no network"))
    number = find_promotions(promoted)[0].trial
    with pytest.raises(HeadhuntError, match=rf"onnxruntime cannot load run/exports/{number}/model\.onnx: ") as error:
        export(promoted, None, ["onnx"])
    assert ".tmp" not in str(error.value)


def test_the_formats_of_a_promotion_stay_whatever_their_times_of_writing(promoted: Run) -> None:
    folder = Path(export(promoted, None, ["keras", "config"]).folder)
    for path in Path("run").rglob("*"):  # a copy without times: the network is as new as its exports, or newer
        os.utime(path, (1e9 + len(path.name), 1e9 + len(path.name)))
    export(promoted, None, ["onnx"])
    assert {"model.keras", "headhunt.yaml", "model.onnx"} <= {path.name for path in folder.iterdir()}
    assert (
        "`model.keras` (keras), `model.onnx` (onnx), `headhunt.yaml` (config)" in (folder / "model_card.md").read_text()
    )


def test_files_of_which_nothing_is_recorded_are_kept_and_named(
    promoted: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = export(promoted, None, ["keras"])
    folder = Path(exported.folder)
    (folder / ".bundle.json").unlink()  # as left by an earlier version
    written = (folder / "model.keras").read_bytes()
    capsys.readouterr()
    for _ in range(2):
        export(promoted, None, ["config"])
        assert (folder / "model.keras").read_bytes() == written
        told = " ".join(capsys.readouterr().err.split())
        assert (
            f"Kept {folder}/model.keras: there is no record of the promotion it belongs to. To export it from this promotion, "
            f"run `headhunt train export --trial {exported.trial} --format keras`." in told
        )
        assert "Removed" not in told
        assert "model.keras`" not in (folder / "model_card.md").read_text()
    export(promoted, None, ["keras"])
    assert "Kept" not in capsys.readouterr().err


def test_a_record_takes_away_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    for name in ("model.keras", "model.onnx"):
        (tmp_path / name).write_bytes(name.encode())
    files = BundleFiles(tmp_path, "3-aa", "first")
    files.add("keras", 0.0)
    assert files.unrecorded() == [("onnx", tmp_path / "model.onnx")]
    (tmp_path / "model.keras").write_bytes(b"damaged")
    files = BundleFiles(tmp_path, "3-aa", "first")
    assert not (tmp_path / "model.keras").exists() and (tmp_path / "model.onnx").exists()
    (tmp_path / "model.keras").write_bytes(b"again")
    files.add("keras", 0.0)
    other = BundleFiles(tmp_path, "3-bb", "second")
    assert not (tmp_path / "model.keras").exists()
    assert other.unrecorded() == [("onnx", tmp_path / "model.onnx")]


def test_a_bundle_holds_one_promotion(promoted: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(export(promoted, None, ["keras", "savedmodel", "onnx"]).folder)
    (first,) = promote(promoted)
    tuning = promoted.train.finetune.model_copy(update={"learning_rate": 1e-2})
    (second,) = promote(promoted.model_copy(update={"train": promoted.train.model_copy(update={"finetune": tuning})}))
    assert (first.trial, first.recipe) != (second.trial, second.recipe)
    other = next(each for each in (first, second) if each != find_promotions(promoted)[0])
    capsys.readouterr()
    exported = export(promoted, other.trial, ["keras"], other.recipe[:4])
    assert exported.recipe == other.recipe
    best = find_promotion(promoted, other.trial)
    exported = export(promoted, other.trial, ["keras"])
    assert exported.recipe == best.recipe != other.recipe
    assert not (folder / "savedmodel").exists() and not (folder / "model.onnx").exists()
    message = f"Removed {folder}/savedmodel: it does not match the promotion {first.trial}-"
    assert message in capsys.readouterr().err
    with pytest.raises(UsageError, match=rf"not promoted with the recipe 'x'; its recipes: .*{other.recipe}"):
        export(promoted, other.trial, ["keras"], "x")


def test_the_configuration_chooses_the_formats(promoted: Run) -> None:
    chosen = promoted.train.model_copy(update={"formats": ("config",)})
    assert list(export(promoted.model_copy(update={"train": chosen}), None).formats) == ["config"]


def test_what_was_compared_is_not_compared_again_in_the_same_runtime(
    promoted: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = export(promoted, None, ["keras", "onnx"])
    loaded = []
    monkeypatch.setattr(
        train.exports.export, "load_model", lambda path, name: loaded.append(name) or load_model(path, name)
    )
    assert export(promoted, None, ["keras", "onnx"]) == first and not loaded
    versions = train.exports.record.versions
    monkeypatch.setattr(
        train.exports.record, "versions", lambda name: versions(name).replace("onnxruntime ", "onnxruntime 9")
    )
    export(promoted, None, ["keras", "onnx"])
    assert loaded == ["onnx"]


def test_what_is_exported_is_converted_again_only_when_damaged(promoted: Run) -> None:
    folder = Path(export(promoted, None, ["keras", "onnx"]).folder)
    written = {name: (folder / name).stat().st_mtime_ns for name in ("model.keras", "model.onnx")}
    (folder / "model.keras").write_bytes(b"damaged")
    again = export(promoted, None, ["keras", "onnx"]).formats
    assert (folder / "model.onnx").stat().st_mtime_ns == written["model.onnx"]
    assert (folder / "model.keras").stat().st_size > 1000
    assert max(row.max_abs_difference for row in again.values()) < 1e-5


def test_one_process_exports_at_a_time_and_removes_what_a_killed_one_left(promoted: Run) -> None:
    exports = promoted.workdir / "exports"
    folder = exports / str(find_promotions(promoted)[0].trial)
    for left in (".savedmodel.1f.tmp", ".savedmodel.1f.old"):
        (folder / left / "variables").mkdir(parents=True)
    (folder / ".model.1f.tmp.keras").write_bytes(b"half")
    lock = promoted.workdir / ".export.lock"
    with only_process(lock, ""), pytest.raises(UsageError, match="another process is exporting models of"):
        export(promoted, None, ["config"])
    export(promoted, None, ["config"])
    assert list(exports.iterdir()) == [folder], "users go through the bundles there"
    assert sorted(path.name for path in folder.glob(".*")) == [".bundle.json"]
