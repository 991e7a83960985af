"""Identical photos and photos of one group: one split, an error, or left out; and tables as spreadsheets write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from features.config import FeaturesRun
from features.dataset.index import load_index
from features.dataset.prepare import prepare
from features.runtime.errors import DatasetError
from features.runtime.log import log

pytestmark = pytest.mark.unit

random = np.random.default_rng(0)


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def copy(path: Path, to: Path) -> None:
    to.write_bytes(path.read_bytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of 40 photos."""
    for name in ("a", "b"):
        for number in range(40):
            photo(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def run_on(root: Path, table: str = "", **dataset: Any) -> FeaturesRun:
    """Of the class folders, or of a table in the root."""
    section = {"kind": "csv", "file": str(root / table)} if table else {"kind": "folder", "root": str(root)}
    return FeaturesRun.model_validate({"workdir": str(root.parent / "run"), "dataset": {**section, **dataset}})


def prepared(run: FeaturesRun) -> tuple[pd.DataFrame, str]:
    with log.capture() as captured:
        prepare(run)
    return load_index(run).table, " ".join(captured.get().split())


def splits_of(table: pd.DataFrame, by: str) -> pd.Series[int]:
    """In how many splits the photos of each digest or group are."""
    return table.groupby(by)["split"].nunique()


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_in_one_split_and_the_others_stay_stratified(root: Path, seed: int) -> None:
    split = {"train": 0.5, "val": 0.3, "test": 0.2, "seed": seed}
    before, _ = prepared(run_on(root, split=split))
    for number in range(6):
        copy(root / "a" / f"{number}.png", root / "a" / f"copy {number}.png")
    table, words = prepared(run_on(root, split=split))
    assert len(table) == 86
    assert splits_of(table, "sha256").max() == 1
    assert "6 photos are identical to others; identical photos stay in the same split." in words
    for label, count in ((0, 46), (1, 40)):
        own = table[table["label"] == label]["split"].value_counts()
        assert all(abs(own[part] - share * count) <= 2 for part, share in (("train", 0.5), ("val", 0.3), ("test", 0.2)))
    same = before.merge(table[~table["sha256"].duplicated(keep=False)], on="path", suffixes=("", "_now"))
    assert (
        same[same["label"] == 1]["split"] == same[same["label"] == 1]["split_now"]
    ).all()  # without copies: as before


def test_copies_under_two_labels_are_an_error_that_lists_them(root: Path) -> None:
    copy(root / "a" / "3.png", root / "b" / "again.png")
    with pytest.raises(DatasetError, match=r"identical photos with two labels: a/3.png = b/again.png\.") as caught:
        prepare(run_on(root))
    assert "`dataset.on_duplicate`" in str(caught.value)
    kept, _ = prepared(run_on(root, on_duplicate="keep"))
    assert (len(kept), splits_of(kept, "sha256").max()) == (81, 1)
    left, words = prepared(run_on(root, on_duplicate="drop"))
    assert len(left) == 79
    assert not {"a/3.png", "b/again.png"} & set(left["path"])
    assert "Left out 2 photos that are identical" in words


def test_copies_across_the_data_sets_own_splits(root: Path) -> None:
    for part, name in (("train", "a"), ("train", "b"), ("val", "a"), ("val", "b"), ("test", "a"), ("test", "b")):
        for number in range(4):
            photo(root.parent / "own" / part / name / f"{number}.png")
    own = root.parent / "own"
    copy(own / "train" / "a" / "0.png", own / "test" / "a" / "again.png")
    with pytest.raises(
        DatasetError, match=r"in two splits: (test/a/again.png = train/a/0.png|train/a/0.png = test/a/again.png)\."
    ):
        prepare(run_on(own))
    left, _ = prepared(run_on(own, on_duplicate="drop"))
    assert len(left) == 24
    assert "test/a/again.png" in set(left["path"])  # the test photo stays
    kept, _ = prepared(run_on(own, on_duplicate="keep"))
    both = kept[kept["path"].isin(["train/a/0.png", "test/a/again.png"])]
    assert both["split"].tolist() == ["train", "train"]  # training photos are not tested on


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_in_one_split(root: Path, seed: int) -> None:
    """Groups of 1 to 8 photos, some of both classes: each in one split, shares within a group's size."""
    rows, group = [], 0
    for name in ("a", "b"):
        number = 0
        while number < 40:
            size = int(random.integers(1, 9))
            rows += [(f"{name}/{each}.png", name, f"g{group}") for each in range(number, min(40, number + size))]
            number, group = number + size, group + 1
    rows[-1] = (*rows[-1][:2], "g0")  # a photo of b in a group of a
    table = pd.DataFrame(rows, columns=["path", "class_name", "group"])
    table.to_csv(root / "photos.csv", index=False)
    split = {"train": 0.6, "val": 0.2, "test": 0.2, "seed": seed}
    found, _ = prepared(run_on(root, "photos.csv", split=split))
    joined = found.merge(table, on="path")
    assert splits_of(joined, "group").max() == 1
    counts = joined["split"].value_counts()
    assert all(abs(counts[part] - share * 80) <= 8 for part, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)))


def grouped(root: Path, groups: int, names: str = "abc", part: str = "") -> Path:
    """A table of 20 photos per class, in this many groups per class, of nearly equal size."""
    lines = ["path,class_name,group" + (",split" if part else "")]
    for name in names:
        for number in range(20):
            photo(root / name / f"{number}.png")
            row = f"{name}/{number}.png,{name},{name}{number * groups // 20}"
            lines.append(row + (f",{part.split()[number % 3]}" if part else ""))
    (root / "photos.csv").write_text("\n".join(lines))
    return root


def test_three_groups_of_each_class_are_in_three_splits(root: Path) -> None:
    found, words = prepared(run_on(grouped(root, 3), "photos.csv"))
    counts = pd.crosstab(found["label"], found["split"])
    assert sorted(counts.loc[0].tolist()) == [6, 7, 7]
    assert (counts > 0).all(axis=None)
    assert words == ""


def test_two_groups_of_each_class_leave_no_split_empty_and_what_is_missing_is_said(root: Path) -> None:
    """6 groups: each class needs one for training, which leaves three for two splits."""
    found, words = prepared(run_on(grouped(root, 2), "photos.csv"))
    counts = pd.crosstab(found["label"], found["split"]) > 0
    assert counts["train"].all()
    assert sorted(counts[["val", "test"]].sum().tolist()) == [1, 2]
    for part in ("val", "test"):
        absent = [repr("abc"[label]) for label in range(3) if not counts.loc[label, part]]
        assert f"{len(absent)} of 3 classes have no {part} photos: {', '.join(absent)}." in words


def test_groups_too_few_for_three_splits(root: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"each split needs some\. Too many photos belong together, as one group or identical photos"
    ):
        prepare(run_on(grouped(root, 1), "photos.csv"))


def test_a_group_in_two_of_the_tables_own_splits_is_refused(root: Path) -> None:
    run = run_on(grouped(root, 2, part="train val test"), "photos.csv", split={"column": "split"})
    with pytest.raises(
        DatasetError, match=r"6 groups of photos are in several .*\. In the first of group 'a0'"
    ) as caught:
        prepare(run)
    assert "a/0.png is in train, a/1.png in val." in str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_as_spreadsheets_write_them(root: Path, separator: str, encoding: str) -> None:
    lines = [separator.join(("path", "class_name"))]
    lines += [separator.join((f"{name}/{number}.png", f" Škoda {name} ")) for name in "ab" for number in range(40)]
    (root / "photos.csv").write_text("\n".join(lines), encoding=encoding)
    run = run_on(root, "photos.csv")
    assert len(prepared(run)[0]) == 80
    assert load_index(run).class_names == ("Škoda a", "Škoda b")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "^"])
@pytest.mark.parametrize("line", ["sep={}\r\n", '"sep={}"\n', "SEP={} \r"])
def test_the_first_line_may_state_the_separator(root: Path, separator: str, line: str) -> None:
    lines = [separator.join((f"{name}/{number}.png", name)) for name in "ab" for number in range(40)]
    table = "\r\n".join([separator.join(("path", "class_name")), *lines])
    (root / "photos.csv").write_text(line.format(separator) + table, encoding="utf-8-sig", newline="")
    assert len(prepared(run_on(root, "photos.csv"))[0]) == 80
    wrong = line.format(separator) + table.replace("a/1.png", "")
    (root / "photos.csv").write_text(wrong, encoding="utf-8-sig", newline="")
    with pytest.raises(DatasetError, match="line 4: `path` is empty"):
        prepare(run_on(root, "photos.csv"))


def test_the_separator_is_the_one_that_gives_a_path(root: Path) -> None:
    lines = ["path;class_name;a, b, c, d"]
    lines += [f"{name}/{number}.png;{name};1, 2" for name in "ab" for number in range(40)]
    (root / "photos.csv").write_text("\n".join(lines))
    assert len(prepared(run_on(root, "photos.csv"))[0]) == 80


def test_labels_as_pandas_writes_columns_with_gaps(root: Path) -> None:
    table = pd.DataFrame([(f"{name}/{number}.png", label) for label, name in enumerate("ab") for number in range(40)])
    table.set_axis(["path", "label"], axis=1).astype({"label": float}).to_csv(root / "photos.csv", index=False)
    assert "0.0" in (root / "photos.csv").read_text()
    assert prepared(run_on(root, "photos.csv"))[0]["label"].value_counts().to_dict() == {0: 40, 1: 40}


def test_every_row_whose_label_is_a_name_is_listed(root: Path) -> None:
    lines = ["path,label", *(f"a/{number}.png,{'cat' if number % 10 == 3 else 0}" for number in range(40))]
    (root / "photos.csv").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=r"4 lines \(5, 15, 25, 35\): `label` must be an integer"):
        prepare(run_on(root, "photos.csv"))


def test_a_path_from_the_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    lines = ["path,class_name", *(f"~/{name}/{number}.png,{name}" for name in "ab" for number in range(40))]
    (root.parent / "photos.csv").write_text("\n".join(lines))
    assert len(prepared(run_on(root, "../photos.csv"))[0]) == 80


@pytest.mark.parametrize("name", ["split", "Split"])
def test_a_column_split_that_is_not_used_is_said(root: Path, name: str) -> None:
    parts = ["train"] * 20 + ["valid"] * 10 + ["test"] * 10
    lines = [f"path,class_name,{name}"]
    lines += [f"{label}/{number}.png,{label},{parts[number]}" for label in "ab" for number in range(40)]
    (root / "photos.csv").write_text("\n".join(lines))
    _, words = prepared(run_on(root, "photos.csv"))
    assert f"the column `{name}` is not used" in words
    assert f"To use it, set `dataset.split: {{column: {name}}}`." in words
    found, words = prepared(run_on(root, "photos.csv", split={"column": name}))
    assert words == ""
    assert found["split"].value_counts().to_dict() == {"train": 40, "val": 20, "test": 20}


@pytest.mark.parametrize("name", ["group", "Group", "GROUP"])
def test_the_column_group_is_known_in_any_case(root: Path, name: str) -> None:
    table = (grouped(root, 4) / "photos.csv").read_text()
    (root / "photos.csv").write_text(table.replace("group", name, 1))
    found, _ = prepared(run_on(root, "photos.csv"))
    assert (
        found["split"]
        .groupby(found["path"].str[0] + (found["path"].str[2:-4].astype(int) // 5).astype(str))
        .nunique()
        .eq(1)
        .all()
    )


def test_other_columns_are_known_in_any_case_if_no_other_has_the_name(root: Path) -> None:
    lines = [f"{name}/{number}.png,{name},1,1,4,2" for name in "ab" for number in range(40)]
    (root / "photos.csv").write_text("\n".join(["Path,Class_Name,X1,Y1,X2,Y2", *lines]))
    found, _ = prepared(run_on(root, "photos.csv"))
    assert found["x2"].eq(4).all()
    assert found["class_name"].value_counts().to_dict() == {"a": 40, "b": 40}
    lines = [f"{name}/{number}.png,{name},{number},car {number // 5}" for name in "ab" for number in range(40)]
    (root / "photos.csv").write_text("\n".join(["path,class_name,Label,Class", *lines]))
    assert prepared(run_on(root, "photos.csv"))[0]["label"].nunique() == 2


@pytest.mark.parametrize("name", ["two\nlines", "bell\a", " ", "turned \u202e round"])
def test_names_that_later_stages_could_not_carry(root: Path, name: str) -> None:
    (root / "b").rename(root / name)
    with pytest.raises(DatasetError, match=r"unprintable"):
        prepare(run_on(root))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Audi", "audi"),
        ("audi", "audi\u200b"),  # a zero-width space
        ("\u0160koda", "S\u030ckoda"),  # precomposed, and a letter with a combining accent
        ("audi a4", "audi  a4"),
    ],
)
def test_names_that_nobody_could_tell_apart(root: Path, one: str, other: str) -> None:
    (root / "a").rename(root / one)
    (root / "b").rename(root / other)
    with pytest.raises(DatasetError, match=r"1 class names are spelled in two ways that look alike: .* and ") as caught:
        prepare(run_on(root))
    assert all(ascii(name)[1:-1] in ascii(str(caught.value)).replace("\\\\", "\\") for name in (one, other))


def test_scripts_that_need_invisible_letters_keep_them(root: Path) -> None:
    (root / "b").rename(root / "\u0645\u06cc\u200c\u0634\u0648\u062f")
    assert len(prepared(run_on(root))[0]) == 80
