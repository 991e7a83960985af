"""`train predict`: an exported model of any format on photos of any kind, as a process; and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from features.runtime.errors import HeadhuntError, UsageError
from reports.config import Run
from tests.conftest import run_headhunt
from tests.forks import run_command
from train.exports.export import export
from train.exports.predict import Unreadable, exported_model, model_in, predict_images
from train.exports.runtimes import RUNTIMES, format_of, load_model
from train.promotion.promote import promote


@pytest.fixture
def bundle(promoted: Run) -> Path:
    """An exported bundle with every format except SavedModel."""
    return Path(export(promoted, None, ["keras", "onnx", "litert"]).folder)


def test_the_command_gives_what_the_promotion_gave(promoted: Run, bundle: Path, photos: Path) -> None:
    table = pd.read_csv(promote(promoted)[0].folder / "predictions.csv").head(2)
    images = [str(photos / path) for path in table["path"]]
    done = run_headhunt(Path.cwd(), "train", "predict", *images, "--format", "onnx", "--json")
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["model"], result["format"]) == (str(bundle / "model.onnx"), "onnx")
    assert [row["image"] for row in result["images"]] == images
    for row, (_, expected) in zip(result["images"], table.iterrows(), strict=True):
        assert [found["label"] for found in row["predictions"]] == [expected[f"predicted_{rank}"] for rank in (1, 2, 3)]
        for rank, found in enumerate(row["predictions"], start=1):
            assert found["class"] == "abc"[found["label"]]
            assert found["probability"] == pytest.approx(expected[f"probability_{rank}"], abs=1e-5)
        assert f"{row['predictions'][0]['probability']:.4f}" in done.stderr  # the table


def test_a_bundle_needs_no_configuration(bundle: Path, photos: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(bundle, moved)
    image = str(photos / "a" / "0.png")
    done = run_headhunt(tmp_path, "train", "predict", image, "--model", "elsewhere/model.tflite", "--json")
    assert json.loads(done.stdout)["format"] == "litert"
    assert model_in(moved, None) == moved / "model.keras"
    assert model_in(moved, "onnx") == moved / "model.onnx"


def test_every_format_and_kind_of_image(bundle: Path, photos: Path, tmp_path: Path) -> None:
    upright = Image.open(photos / "b" / "1.png")
    turned = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it by 90 degrees clockwise
    upright.rotate(90, expand=True).save(turned, exif=exif)
    grey, palette = tmp_path / "grey.png", tmp_path / "palette.gif"
    upright.convert("L").save(grey)
    upright.convert("P").save(palette)
    images = [photos / "b" / "1.png", turned, grey, palette]
    first = predict_images(bundle / "model.keras", images).images
    assert first[0].predictions == first[1].predictions
    for file in ("model.onnx", "model.tflite"):
        for row, expected in zip(predict_images(bundle / file, images).images, first, strict=True):
            assert [found.probability for found in row.predictions] == pytest.approx(
                [found.probability for found in expected.predictions], abs=1e-5
            )


@pytest.fixture
def mixed(photos: Path, tmp_path: Path) -> Path:
    """A folder in which `features prepare` would count 5 photos, 2 of them unreadable."""
    folder = tmp_path / "mixed"
    for name, source in (("10.png", "a/0"), ("9.png", "b/0"), ("deep/er/no-suffix", "c/0"), (".hidden.png", "a/1")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photos / f"{source}.png", target)
    (folder / "text.jpg").write_text("plain text")
    (folder / "cut.png").write_bytes((photos / "a" / "2.png").read_bytes()[:200])
    (folder / "notes.txt").write_text("plain text")
    return folder


def predict(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`headhunt train predict` as a process, however it ends."""
    return run_command(folder, ("train", "predict", *arguments))


def test_folders_are_read_and_bad_files_are_named(bundle: Path, photos: Path, mixed: Path) -> None:
    model = str(bundle.resolve() / "model.onnx")
    single = str(photos / "a" / "1.png")
    done = predict(mixed.parent, "mixed", single, "none.jpg", "--model", model, "--out", "found.csv", "--json")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert "mixed/text.jpg: not a readable image (unknown format)" in lines
    assert "mixed/cut.png: truncated" in lines
    assert "none.jpg: missing" in lines
    assert "Left out files that cannot be read as photos: 1 .txt." in lines
    assert (
        lines[-1]
        == "headhunt: 3 of 7 photos or folders could not be read; see the reasons above. The others were predicted."
    )
    assert "Traceback" not in done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    read = ["mixed/9.png", "mixed/10.png", "mixed/deep/er/no-suffix", single]
    assert [row["image"] for row in result["images"]] == read
    assert [row["image"] for row in result["failed"]] == ["mixed/cut.png", "mixed/text.jpg", "none.jpg"]
    table = pd.read_csv(mixed.parent / "found.csv")
    assert table.columns.tolist() == ["path", "rank", "class", "label", "probability"]
    assert table["path"].drop_duplicates().tolist() == read
    assert table.groupby("path")["probability"].sum().tolist() == pytest.approx([1] * 4)  # all three classes
    for row in result["images"]:
        rows = table[table["path"] == row["image"]]
        assert rows["rank"].tolist() == [1, 2, 3]
        assert rows[["class", "label", "probability"]].to_dict("records") == row["predictions"]


def test_a_model_that_changed_since_its_export_is_refused(bundle: Path, photos: Path) -> None:
    photo, model = photos / "a" / "0.png", bundle / "model.onnx"
    whole = model.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    model.write_bytes(changed)
    with pytest.raises(
        HeadhuntError, match=r"model\.onnx is damaged or was replaced: .* \.bundle\.json .*export it again"
    ):
        predict_images(model, [photo])
    model.write_bytes(whole)
    assert predict_images(model, [photo]).failed == []
    (bundle / ".bundle.json").unlink()  # as in a bundle of an earlier version
    assert predict_images(model, [photo]).failed == []


def test_when_all_can_be_read_the_command_succeeds(bundle: Path, photos: Path, tmp_path: Path) -> None:
    model = str(bundle.resolve())
    done = predict(tmp_path, str(photos / "a"), str(photos / "a" / "0.png"), "--model", model, "--out", "all.csv")
    assert done.returncode == 0, done.stderr
    assert "Wrote the predictions for 8 photos to all.csv" in done.stdout
    table = pd.read_csv(tmp_path / "all.csv", index_col=["path", "rank"])
    assert table.xs(1, level="rank").index.tolist() == [str(photos / "a" / f"{number}.png") for number in range(8)]
    assert not list(tmp_path.glob(".*"))


def test_photos_that_a_table_cannot_name_are_named_and_the_others_written(
    bundle: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "odd").mkdir()
    for name in (b"good.png", b"not utf-8 \xff.png", b"two\nlines.png"):
        shutil.copyfile(photos / "a" / "0.png", os.fsdecode(bytes(tmp_path / "odd") + b"/" + name))
    os.mkfifo(tmp_path / "odd" / "pipe")
    done = predict(tmp_path, "odd", "--model", str(bundle.resolve()), "--out", "found.csv", "--json")
    assert done.returncode == 1
    assert "headhunt: 2 of 3 photos or folders could not be read" in done.stderr
    assert "odd/not utf-8 ?.png: with a name that is not UTF-8; rename it" in done.stderr
    assert "Left out files that cannot be read as photos: 1 without a suffix." in done.stderr
    failed = json.loads(done.stdout.splitlines()[-1])["failed"]
    assert [(row["image"], row["reason"].partition("; ")[0]) for row in failed] == [
        ("odd/not utf-8 ?.png", "with a name that is not UTF-8"),
        ("odd/two\nlines.png", "with a line break or another unprintable character in its name"),
    ]
    assert pd.read_csv(tmp_path / "found.csv")["path"].unique().tolist() == ["odd/good.png"]


def test_a_url_is_to_be_downloaded_first(bundle: Path, photos: Path, tmp_path: Path) -> None:
    """It was printed with one slash, as missing."""
    shutil.copytree(photos / "a", tmp_path / "s3:" / "a")  # a folder that is there is no URL
    urls = ["https://a.b/c.jpg", "s3://cars/a"]
    done = predict(tmp_path, *urls, "s3:/a/0.png", "--model", str(bundle.resolve()), "--json")
    assert done.returncode == 1
    reason = "a URL; download the photo first, and give the file's path"
    assert [f"{url}: {reason}" in done.stderr for url in urls] == [True, True]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["failed"] == [{"image": url, "reason": reason} for url in urls]
    assert [row["image"] for row in result["images"]] == ["s3:/a/0.png"]


def test_nothing_is_predicted_where_nothing_can_be_written(bundle: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    image, model = str(photos / "a" / "0.png"), str(bundle.resolve())
    for out, said in (
        ("folder", "headhunt: --out: folder is a folder. Give a file, such as folder/predictions.csv."),
        ("none/found.csv", "headhunt: --out: the folder none does not exist. Create it, or give another file."),
    ):
        done = predict(tmp_path, image, "--model", model, "--out", out)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (2, said)


def test_a_photo_given_as_out_is_kept_and_a_table_is_replaced(bundle: Path, photos: Path, tmp_path: Path) -> None:
    photo, model = tmp_path / "photo.png", str(bundle.resolve())
    shutil.copyfile(photos / "a" / "0.png", photo)
    before = photo.read_bytes()
    done = predict(tmp_path, "photo.png", "--model", model, "--out", "photo.png")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "headhunt: --out: photo.png exists and is not a table of predictions. Delete it, or give another file.",
    )
    assert photo.read_bytes() == before
    (tmp_path / "found.csv").touch()  # as made by mktemp
    for _ in range(2):
        assert predict(tmp_path, "photo.png", "--model", model, "--out", "found.csv").returncode == 0
    done = predict(tmp_path, "missing.png", "--model", model)
    assert done.stderr.splitlines()[-1] == (
        "headhunt: 1 of 1 photos or folders could not be read; see the reasons above."
    )


def test_a_folder_without_photos_is_said(bundle: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = predict_images(bundle / "model.keras", [tmp_path / "empty", photos / "b" / "0.png"])
    assert found.failed == [Unreadable(str(tmp_path / "empty"), "the folder has no photos")]
    assert len(found.images) == 1


def test_models_that_are_not_there(promoted: Run, photos: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing is exported in run. Run `headhunt train export`"):
        exported_model(promoted, None, None)
    with pytest.raises(UsageError, match=r"trial 5 is not exported. Run `headhunt train export --trial 5`"):
        exported_model(promoted, 5, None)
    folder = Path(export(promoted, None, ["keras"]).folder)
    assert exported_model(promoted, None, None) == folder / "model.keras"
    with pytest.raises(UsageError, match=r"has no litert, only keras. Run `headhunt train export --format litert`"):
        exported_model(promoted, None, "litert")
    with pytest.raises(UsageError, match=r"--format: received 'tflite'; allowed: keras, savedmodel, onnx, litert"):
        exported_model(promoted, None, "tflite")
    with pytest.raises(UsageError, match=r"there is no model at nowhere.onnx. Write one with `headhunt train export`"):
        model_in(Path("nowhere.onnx"), None)
    with pytest.raises(UsageError, match=r"is keras, not onnx. Remove --format"):
        model_in(folder / "model.keras", "onnx")
    with pytest.raises(
        UsageError, match=r"labels.txt is not a model; it must be a file of type .keras, .onnx, .tflite"
    ):
        format_of(folder / "labels.txt")
    (folder / "labels.txt").write_text("a\nb\n")
    with pytest.raises(
        HeadhuntError, match=r"lists 2 classes, but .*model.keras has 3: they come from different exports"
    ):
        predict_images(folder / "model.keras", [photos / "a" / "0.png"])
    (folder / "labels.txt").unlink()
    with pytest.raises(UsageError, match=r"labels.txt is missing; it must list the class names, one per line"):
        predict_images(folder / "model.keras", [photos / "a" / "0.png"])


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_damaged_model_is_one_message(name: str, tmp_path: Path) -> None:
    path = tmp_path / RUNTIMES[name].file
    if path.suffix:
        path.write_bytes(b"not a model")
    else:
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"not a model")
    with pytest.raises(HeadhuntError, match=rf"{RUNTIMES[name].name} cannot load .*{path.name}: \S"):
        load_model(path, format_of(path))


def test_a_damaged_keras_file_is_not_called_missing(tmp_path: Path) -> None:
    import keras

    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(9)]).save(path)
    content = bytearray(path.read_bytes())
    damaged = {
        len(content) // 2: "it is truncated or not a zip archive",
        len(content): "the checksum of its model.weights",
    }
    content[content.index(b"\x89HDF") + 2000] ^= 1
    for size, reason in damaged.items():
        path.write_bytes(content[:size])
        with pytest.raises(HeadhuntError, match=f"Keras cannot load {path}: it is damaged .{reason}.*Restore a copy"):
            load_model(path, "keras")


def test_a_model_of_other_inputs_is_refused(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    model.save(tmp_path / "other.keras")
    loaded = load_model(tmp_path / "other.keras", "keras")
    assert loaded.run(np.zeros((2, 8, 8, 3), np.uint8)).shape == (2, 3)
    with pytest.raises(
        UsageError, match=r"the model takes float32 inputs of shape \(None, 8, 8, 3\); it must take uint8 photos"
    ):
        _ = loaded.image_size


def test_a_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        UsageError,
        match=r"model.onnx needs onnxruntime, not installed. Run `pip install 'headhunt\[export\]'`, or choose "
        r"another --format: keras, savedmodel, litert",
    ):
        load_model(tmp_path / "model.onnx", "onnx")
