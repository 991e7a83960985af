"""From a data set's own files to the index: every reader, every fault, the splits."""

from __future__ import annotations

import csv
import shutil
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from features.config import FeaturesRun
from features.dataset.index import COLUMNS, SPLITS, load_index
from features.dataset.prepare import prepare
from features.dataset.readers.photo_files import natural_key
from features.dataset.skipped import load_skipped
from features.dataset.splits import split_sizes
from features.runtime.errors import DatasetError, UsageError
from features.runtime.log import log


def photo(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(path.as_posix().encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of seven photos."""
    for name in ("class_1", "class_2", "class_10"):
        for number in range(7):
            photo(tmp_path / "photos" / name / f"{number}.jpg")
    return tmp_path / "photos"


def make(tmp_path: Path, **dataset: Any) -> FeaturesRun:
    return FeaturesRun.model_validate({"workdir": str(tmp_path / "run"), "dataset": dataset})


def refusal(run: FeaturesRun) -> str:
    with pytest.raises(DatasetError) as caught:
        prepare(run)
    assert not (run.workdir / "dataset" / "prepared.json").exists()
    return str(caught.value)


def said(call: Any) -> str:
    with log.capture() as captured:
        call()
    return " ".join(captured.get().split())


def test_folders_in_numeric_order_with_a_warning(tmp_path: Path, root: Path) -> None:
    run = make(tmp_path, kind="folder", root=str(root))
    assert "This differs from the alphabetical order of Keras's" in said(lambda: prepare(run))
    index = load_index(run)
    assert index.class_names == ("class_1", "class_2", "class_10")
    assert tuple(index.table.columns) == COLUMNS
    assert set(index.table["width"]) == {40}
    assert set(index.table["height"]) == {30}
    assert Counter(index.table["split"]) == {"train": 14, "val": 4, "test": 3}
    for split in SPLITS:
        assert set(index.of_split(split)["label"]) == {0, 1, 2}


def test_natural_order() -> None:
    assert sorted(["b", "a10", "a2", "a", "a02"], key=natural_key) == ["a", "a02", "a2", "a10", "b"]


def test_the_index_is_the_same_to_the_byte_and_depends_on_the_seed(tmp_path: Path, root: Path) -> None:
    run = make(tmp_path, kind="folder", root=str(root))
    prepare(run)
    index = run.workdir / "dataset" / "index.csv"
    first = index.read_bytes()
    prepare(run)
    assert index.read_bytes() == first
    other = make(tmp_path, kind="folder", root=str(root), split={"seed": 7})
    with pytest.raises(UsageError, match=r"was made with another configuration: dataset.split"):
        load_index(other)
    prepare(other)
    assert index.read_bytes() != first


@pytest.mark.parametrize("seed", range(3))
def test_split_sizes_meet_the_shares_and_every_class_is_everywhere(seed: int) -> None:
    counts = np.random.default_rng(seed).integers(3, 90, 196).tolist()
    shares = [0.65, 0.20, 0.15]
    sizes = split_sizes(counts, shares)
    assert (sizes.sum(1) == counts).all()
    assert sizes.min() >= 1
    assert np.abs(sizes.sum(0) - np.array(shares) * sum(counts)).max() <= 2


def test_all_faults_are_listed_at_once_or_skipped_and_counted(tmp_path: Path, root: Path) -> None:
    (root / "class_1" / "0.jpg").write_bytes(b"")
    (root / "class_1" / "1.jpg").write_bytes(b"no photo at all")
    whole = (root / "class_2" / "0.jpg").read_bytes()
    (root / "class_2" / "0.jpg").write_bytes(whole[: len(whole) // 2])
    photo(root / "class_10" / "0.jpg", size=(200, 200))
    options = {"kind": "folder", "root": str(root), "max_pixels": 10_000}
    message = refusal(make(tmp_path, **options))
    assert "4 of 21 photos" in message
    for part in (
        "empty: class_1/0.jpg",
        "not a readable image: class_1/1.jpg",
        "truncated: class_2/0.jpg",
        "larger than",
    ):
        assert part in message
    assert "`dataset.on_missing: skip`" in message
    run = make(tmp_path, **options, on_missing="skip")
    result: dict[str, Any] = {}
    assert "Skipped 4 of 21 photos" in said(lambda: result.update(prepare(run)))
    assert (result["images"], result["skipped"], result["classes"]) == (17, 4, 3)
    with (run.workdir / "dataset" / "skipped.csv").open() as file:
        listed = {row["path"]: row["reason"].partition(" (")[0] for row in csv.DictReader(file)}
    assert listed == {
        "class_1/0.jpg": "empty",
        "class_1/1.jpg": "not a readable image",
        "class_2/0.jpg": "truncated",
        "class_10/0.jpg": "larger than dataset.max_pixels",
    }


def test_a_fault_is_listed_with_its_detail(tmp_path: Path, root: Path) -> None:
    photo(root / "class_10" / "0.jpg", size=(200, 210))
    message = refusal(make(tmp_path, kind="folder", root=str(root), max_pixels=10_000))
    assert "1 larger than dataset.max_pixels" in message
    assert "class_10/0.jpg (200 × 210 > 10000)" in message


def test_classes_without_a_photo_are_left_out_when_skipping(tmp_path: Path, root: Path) -> None:
    for number in range(7):
        (root / "class_2" / f"{number}.jpg").write_bytes(b"")
    run = make(tmp_path, kind="folder", root=str(root), on_missing="skip")
    assert "1 of 3 classes have no photo and are left out" in said(lambda: prepare(run))
    index = load_index(run)
    assert index.class_names == ("class_1", "class_10")
    assert set(index.table["label"]) == {0, 1}


def test_small_classes_are_named(tmp_path: Path, root: Path) -> None:
    for number in range(5):
        (root / "class_2" / f"{number}.jpg").unlink()
    message = refusal(make(tmp_path, kind="folder", root=str(root)))
    assert message.startswith(
        "1 class has fewer than three photos, but each split needs one: 'class_2' (2). Add photos"
    )
    run = make(tmp_path, kind="folder", root=str(root), min_per_class=3)
    told = said(lambda: prepare(run))
    assert "Left out 1 class with fewer than 3 photos (dataset.min_per_class): 'class_2' (2)." in told
    assert load_index(run).class_names == ("class_1", "class_10")


def test_every_photo_that_is_left_out_is_listed_with_its_reason(tmp_path: Path, root: Path) -> None:
    for number in range(5):
        (root / "class_2" / f"{number}.jpg").unlink()
    shutil.copy(root / "class_1" / "0.jpg", root / "class_1" / 'again, a "copy".jpg')
    run = make(tmp_path, kind="folder", root=str(root), min_per_class=3, on_duplicate="drop")
    assert load_skipped(run.workdir) is None
    result = prepare(run)
    copy, *small = (load_skipped(run.workdir) or {}).items()
    assert copy[0] in ("class_1/0.jpg", 'class_1/again, a "copy".jpg')
    assert copy[1] == "identical to another photo (dataset.on_duplicate)"
    reason = "in a class with fewer than 3 photos (dataset.min_per_class)"
    assert small == [("class_2/5.jpg", reason), ("class_2/6.jpg", reason)]
    assert result["skipped"] == 3
    photo(root / "class_2" / "0.jpg")
    prepare(make(tmp_path, kind="folder", root=str(root)))
    assert load_skipped(run.workdir) == {}
    (run.workdir / "dataset" / "skipped.csv").write_text("path,reason\nonly a path\n")
    with pytest.raises(DatasetError, match=r"skipped.csv is damaged .* Rerun `headhunt features prepare`."):
        load_skipped(run.workdir)


def test_no_photos(tmp_path: Path) -> None:
    (tmp_path / "photos" / "a").mkdir(parents=True)
    assert "there are no photos below" in refusal(make(tmp_path, kind="folder", root=str(tmp_path / "photos")))
    assert "there is no folder" in refusal(make(tmp_path, kind="folder", root=str(tmp_path / "none")))
    (tmp_path / "empty").mkdir()
    assert "has no class folders" in refusal(make(tmp_path, kind="folder", root=str(tmp_path / "empty")))


def test_grey_cmyk_transparent_and_turned_photos_become_upright_rgb(tmp_path: Path, root: Path) -> None:
    from features.dataset.images import load_images

    for number, mode in enumerate(("L", "CMYK", "P")):
        photo(root / "class_1" / f"{number}.{'png' if mode == 'P' else 'jpg'}", mode)
    (root / "class_1" / "2.jpg").unlink()
    photo(root / "class_1" / "3.png", "RGBA")
    (root / "class_1" / "3.jpg").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "class_1" / "4.jpg").save(root / "class_1" / "4.jpg", exif=exif)
    run = make(tmp_path, kind="folder", root=str(root))
    prepare(run)
    index = load_index(run)
    turned = index.table[index.table["path"] == "class_1/4.jpg"].iloc[0]
    assert (turned["width"], turned["height"]) == (30, 40)
    assert load_images(index, range(len(index.table)), (16, 24), False).shape == (21, 16, 24, 3)


def test_16_bit_and_half_transparent_photos_keep_their_brightness(tmp_path: Path, root: Path) -> None:
    from features.dataset.images import load_images

    grey = np.linspace(0, 255, 40 * 30, dtype=np.uint8).reshape(30, 40)
    Image.fromarray(grey.astype(np.uint16) * 257).save(root / "class_1" / "8.png")
    Image.fromarray(grey).convert("P").save(root / "class_1" / "9.png", transparency=bytes(range(256)))
    run = make(tmp_path, kind="folder", root=str(root))
    prepare(run)
    index = load_index(run)
    rows = [int(index.table.index[index.table["path"] == f"class_1/{n}.png"][0]) for n in (8, 9)]
    for pixels in load_images(index, rows, (30, 40), False):
        assert np.abs(pixels.astype(int) - grey[..., None]).max() <= 1
    Image.fromarray(grey.astype(np.float32)).save(root / "class_1" / "8.tiff")
    with pytest.raises(DatasetError, match="1 with 32-bit pixels, which have no defined white level"):
        prepare(run)


def test_a_photo_that_goes_bad_after_it_was_indexed_is_named(tmp_path: Path, root: Path) -> None:
    from features.dataset.images import load_images

    run = make(tmp_path, kind="folder", root=str(root))
    prepare(run)
    index = load_index(run)
    file = root / index.table["path"][0]
    file.write_bytes(b"gone")
    with pytest.raises(
        DatasetError, match=r"the photo .*class_1/0.jpg has changed .*rerun `headhunt features prepare`"
    ):
        load_images(index, [0], (8, 8), False)
    file.unlink()
    with pytest.raises(
        DatasetError, match=r"cannot read the photo .*class_1/0.jpg: .*Rerun `headhunt features prepare`"
    ):
        load_images(index, [0], (8, 8), False)


def test_boxes_that_do_not_fit_their_photo(tmp_path: Path, root: Path) -> None:
    def table(x1: int, x2: int) -> FeaturesRun:
        lines = [f"photos/{name}/{n}.jpg,{name},{x1},1,{x2},20" for name in ("class_1", "class_2") for n in range(3)]
        (tmp_path / "cars.csv").write_text("\n".join(["path,class_name,x1,y1,x2,y2", *lines]))
        return make(tmp_path, kind="csv", file=str(tmp_path / "cars.csv"), crop_to_bbox=True)

    assert "6 with the bounding box outside; if the photos are already cropped" in refusal(table(41, 50))
    assert "6 bounding boxes extend past the edge" in said(lambda: prepare(table(30, 41)))
    assert "bounding" not in said(lambda: prepare(table(30, 40)))
    without = tmp_path / "without.csv"
    without.write_text(
        "\n".join(
            ["path,class_name", *(f"photos/{name}/{n}.jpg,{name}" for name in ("class_1", "class_2") for n in range(3))]
        )
    )
    run = make(tmp_path, kind="csv", file=str(without), crop_to_bbox=True)
    assert "set, but 6 of 6 photos have no bounding box and are used whole" in said(lambda: prepare(run))


def test_a_table_with_boxes_and_its_own_split(tmp_path: Path, root: Path) -> None:
    from features.dataset.images import load_images

    rows = []
    for name in ("class_1", "class_2"):
        for number, split in enumerate(("train", "train", "train", "val", "test", "test", "train")):
            rows.append(
                {
                    "path": f"photos/{name}/{number}.jpg",
                    "class_name": name,
                    "part": split,
                    "x1": 1,
                    "y1": 1,
                    "x2": 10,
                    "y2": 20,
                }
            )
    pd.DataFrame(rows).to_csv(tmp_path / "cars.csv", index=False)
    run = make(tmp_path, kind="csv", file=str(tmp_path / "cars.csv"), crop_to_bbox=True, split={"column": "part"})
    result = prepare(run)
    assert result["splits"] == {"train": 8, "val": 2, "test": 4}
    index = load_index(run)
    whole = np.asarray(Image.open(index.root / index.table["path"][0]).convert("RGB"))
    assert np.array_equal(load_images(index, [0], (20, 10), True)[0], whole[:20, :10])


def test_class_folders_of_an_earlier_index_are_told(tmp_path: Path, root: Path) -> None:
    prepare(make(tmp_path, kind="folder", root=str(root)), "link")
    assert "class folders" not in said(lambda: prepare(make(tmp_path, kind="folder", root=str(root))))
    other = make(tmp_path, kind="folder", root=str(root), split={"seed": 7})
    assert "are from an earlier index. Update them with `--materialize`" in said(lambda: prepare(other))


def test_class_folders_whose_order_is_the_labels(tmp_path: Path, root: Path) -> None:
    import keras

    run = make(tmp_path, kind="folder", root=str(root))
    for how in ("link", "copy"):
        prepare(run, how)  # type: ignore[arg-type]
        index = load_index(run)
        for split in SPLITS:
            folder = run.workdir / "dataset" / split
            assert sorted(path.name for path in folder.iterdir()) == ["class_001", "class_002", "class_003"]
            read = keras.utils.image_dataset_from_directory(folder, shuffle=False, image_size=(8, 8), verbose=False)
            labels = np.concatenate([labels.numpy() for _, labels in read])
            assert Counter(labels.tolist()) == Counter(index.of_split(split)["label"].tolist())
            assert all(path.is_symlink() == (how == "link") for path in folder.rglob("*.jpg"))


def test_toy_cars_walk_the_devkits_path_and_are_pure(tmp_path: Path) -> None:
    run = make(tmp_path, kind="toy_cars", classes=30, per_class=3, image_size=32)
    result = prepare(run)
    assert (result["images"], result["classes"]) == (90, 30)
    index = load_index(run)
    assert len(set(index.class_names)) == 30
    assert len(set(index.table["sha256"])) == 90
    assert (index.root / "cars_annos.mat").is_file()
    boxes = index.table[["x1", "y1", "x2", "y2"]]
    assert boxes.min().min() >= 1
    assert boxes.max().max() <= 32
    again = make(tmp_path / "again", kind="toy_cars", classes=30, per_class=3, image_size=32)
    prepare(again)
    assert load_index(again).fingerprint == index.fingerprint
    other = make(tmp_path / "other", kind="toy_cars", classes=30, per_class=3, image_size=32, seed=1)
    prepare(other)
    assert not set(load_index(other).table["sha256"]) & set(index.table["sha256"])


def test_toy_cars_are_drawn_once_and_again_when_one_is_gone(tmp_path: Path) -> None:
    run = make(tmp_path, kind="toy_cars", classes=2, per_class=3, image_size=32)
    prepare(run)
    first, last = (load_index(run).root / "car_ims" / f"{number:06d}.jpg" for number in (1, 6))
    drawn, content = first.stat().st_mtime_ns, last.read_bytes()
    prepare(run)
    assert first.stat().st_mtime_ns == drawn
    last.unlink()
    prepare(run)
    assert last.read_bytes() == content


def test_an_index_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no dataset index at .*Run `headhunt features prepare`"):
        load_index(make(tmp_path, kind="toy_cars"))
