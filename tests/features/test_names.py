"""Names of classes and photos that some file systems cannot hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.dataset.class_folders import lay_out
from features.dataset.index import load_index
from features.dataset.names import portable_fault
from features.dataset.prepare import prepare
from features.dataset.skipped import load_skipped
from features.runtime.errors import DatasetError
from tests.features.test_folders import fill, photo, prepared, run_on
from tests.features.test_prepare import make

pytestmark = pytest.mark.unit

BLANK, DOT, WINDOWS = "begins or ends with a blank", "ends with a dot", "is reserved by Windows"

NAMES = [
    ("b ", BLANK),
    (" b", BLANK),
    ("b.", DOT),
    ("CON", WINDOWS),
    ("aux.old", WINDOWS),
    ("com1.tar.gz", WINDOWS),
    ("Lpt9", WINDOWS),
    ("nul .x", WINDOWS),
]


@pytest.mark.parametrize(("name", "why"), NAMES)
def test_class_folders_that_not_every_file_system_can_hold(tmp_path: Path, name: str, why: str) -> None:
    root = fill(tmp_path / "photos", "a", name)
    with pytest.raises(DatasetError) as caught:
        prepare(run_on(root))
    assert str(caught.value) == (
        f"1 class folder cannot be held by every file system: {name!r} (first photo: {name}/0.png), which {why}. "
        "Rename each."
    )
    root = fill(tmp_path / "splits", "train/a", "test/a", f"train/{name}", f"test/{name}")
    with pytest.raises(DatasetError, match=why):
        prepare(run_on(root))
    (root / "train" / name).rename(root / "train" / "fine")
    (root / "test" / name).rename(root / "test" / "fine")
    assert prepared(run_on(root))[0]["classes"] == 2


def test_photos_that_not_every_file_system_can_hold(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", "a", "b")
    for name in ("Nul.png", " x.png", "y.png ", "z.", "aux/0.png"):
        photo(root / "a" / name, "PNG")
    for name in ("null.png", "com.png", "com10.png", "x y.png", ".._.png", "console.1.png"):
        photo(root / "b" / name)
    with pytest.raises(DatasetError) as caught:
        prepare(run_on(root))
    assert "5 of 22 photos" in str(caught.value)
    kind = "with a name that not every file system can hold; rename it"
    assert f"  {kind}: a/ x.png (it {BLANK}), a/Nul.png (it {WINDOWS}), " in str(caught.value)
    run = run_on(root, on_missing="skip")
    assert prepared(run)[0]["images"] == 17
    assert load_skipped(run.workdir) == {
        f"a/{name}": f"{kind} (it {why})"
        for name, why in (
            (" x.png", BLANK),
            ("Nul.png", WINDOWS),
            ("aux/0.png", WINDOWS),
            ("y.png ", BLANK),
            ("z.", DOT),
        )
    }


def test_only_what_the_data_set_names_is_checked() -> None:
    assert portable_fault("/data/aux/photos./a.png", ()) is None
    assert portable_fault("../photos/./a.png", ()) is None
    assert portable_fault("/data/aux.png", ()) is not None


@pytest.mark.parametrize("label", ["Carex sp.", "con", 'Ram C/V: "Cargo" <Van> * | ?'])
def test_labels_of_a_table_are_no_folders(tmp_path: Path, label: str) -> None:
    """Class folders that --materialize creates are numbered, so that they need not hold labels."""
    root = fill(tmp_path / "photos", "a", "b")
    quoted = label.replace('"', '""')
    lines = [f'{name}/{number}.png,"{name if name == "a" else quoted}"' for name in "ab" for number in range(6)]
    (root / "cars.csv").write_text("\n".join(["path,class_name", *lines]))
    run = make(tmp_path, kind="csv", file=str(root / "cars.csv"))
    prepare(run)
    index = load_index(run)
    assert set(index.class_names) == {"a", label}
    lay_out(index, tmp_path, "copy")
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["class_001", "class_002"]
