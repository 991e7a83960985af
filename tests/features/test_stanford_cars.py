"""The devkit of Stanford Cars: both of its forms, its own split, and files that are none of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.dataset.prepare import prepare
from features.dataset.readers.stanford_cars import read_stanford_cars
from features.runtime.errors import UsageError
from tests.features.test_prepare import make, refusal, said

DEVKIT = Path(__file__).parents[3] / "shared" / "data" / "stanford_cars_devkit"
needs_devkit = pytest.mark.skipif(not DEVKIT.is_dir(), reason=f"needs the real devkit at {DEVKIT}")


def test_the_devkits_own_split_is_used_where_it_is_asked_for_alone(tmp_path: Path) -> None:
    toy = {"kind": "toy_cars", "classes": 2, "per_class": 20, "image_size": 32}
    result: dict[str, Any] = {}
    assert said(lambda: result.update(prepare(make(tmp_path, **toy)))) == ""
    assert result["splits"] == {"train": 26, "val": 8, "test": 6}


def test_the_devkits_own_split(tmp_path: Path) -> None:
    toy = {"kind": "toy_cars", "classes": 2, "per_class": 10, "image_size": 32}
    run = make(tmp_path, **toy, split={"column": "test"})
    assert prepare(run)["splits"] == {"train": 8, "val": 2, "test": 10}
    with pytest.raises(UsageError, match=r"dataset.split.column: received 'part'; the devkit's own split is its field"):
        prepare(make(tmp_path, **toy, split={"column": "part"}))


@needs_devkit
def test_both_forms_of_the_real_devkit() -> None:
    from features.dataset.config import ColumnSplit, StanfordCars

    combined = read_stanford_cars(StanfordCars(root=DEVKIT))
    assert (len(combined.photos), len(combined.class_names)) == (16_185, 196)
    assert combined.photos[0].path == "car_ims/000001.jpg"
    assert {photo.label for photo in combined.photos} == set(range(196))
    assert any("/" in name for name in combined.class_names)
    files = [Path("cars_train_annos.mat"), Path("cars_test_annos_withlabels.mat")]
    devkit = read_stanford_cars(StanfordCars(root=DEVKIT, annotations=files, split=ColumnSplit()))
    assert Counter(photo.part for photo in devkit.photos) == {"train": 8_144, "test": 8_041}
    assert devkit.class_names == combined.class_names
    assert Counter(photo.label for photo in devkit.photos) == Counter(photo.label for photo in combined.photos)


@needs_devkit
def test_missing_photos_of_the_real_devkit(tmp_path: Path) -> None:
    run = make(tmp_path, kind="stanford_cars", root=str(DEVKIT))
    message = refusal(run)
    assert "16185 of 16185 photos" in message
    assert "missing: car_ims/" in message
    assert "and 16180 more" in message
    unlabelled = make(tmp_path, kind="stanford_cars", root=str(DEVKIT), annotations=["cars_test_annos.mat"])
    assert "it is the unlabelled test file. Use cars_test_annos_withlabels.mat" in refusal(unlabelled)


def test_annotation_files_that_are_none(tmp_path: Path) -> None:
    from scipy.io import savemat

    run = make(tmp_path, kind="stanford_cars", root=str(tmp_path))
    assert "there is no file" in refusal(run)
    (tmp_path / "cars_annos.mat").write_bytes(b"this is no .mat file" * 20)
    assert "is not a readable .mat file" in refusal(run)
    savemat(tmp_path / "cars_annos.mat", {"boxes": np.zeros((3, 4))})
    message = refusal(run)
    assert "it has the variables boxes, but must have `annotations` with relative_im_path, bbox_x1" in message
    fields = ["relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test"]
    rows = np.array([[("a.jpg", 1, 1, 2, 2, np.zeros(0), 0)]], dtype=[(name, "O") for name in fields])
    savemat(tmp_path / "cars_annos.mat", {"annotations": rows})
    assert "annotation 1 cannot be read" in refusal(run)
    savemat(tmp_path / "cars_annos.mat", {"annotations": np.array([[(1, 2)]], dtype=[("a", "O"), ("b", "O")])})
    assert "it has `annotations` with the fields a, b" in refusal(run)
