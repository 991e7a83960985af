"""Tables that cannot be read: where, what was found, what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.dataset.prepare import prepare
from tests.features.test_folders import fill
from tests.features.test_prepare import make, refusal

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.jpg,0\n", "must have the columns `path`, and `label` or `class_name`, but has file, label."),
        ("x" * 300 + "\n", "`class_name`, but has " + "x" * 200 + " … (of 300 characters)."),
        ("x" * 300 + "\na,b\n", "has 2 cells, but the table has 1 columns: " + "x" * 200 + " … (of 300 characters)."),
        ("x" * 300 + ",y,y\n", "has a duplicate column: " + "x" * 200 + " … (of 306 characters)."),
        ("path,label\na.jpg," + "x" * 300 + "\n", "an integer, but got '" + "x" * 199 + " … (of 302 characters)."),
        ("path,label\na.jpg,zero\n", "cars.csv, line 2: label must be an integer, but got 'zero'"),
        ("path,label\na.jpg,0\nb.jpg,2\n", "labels must be 0, 1, 2, … without gaps, but 1 is missing from 0 to 2"),
        (
            "path,label\na.jpg,0\nb.jpg,4000000000\n",
            "gaps, but 1, 2, 3, 4, 5 and 3999999994 more are missing from 0 to 4000000000. Renumber the classes",
        ),
        ("path,label\na.jpg," + "9" * 5000 + "\n", "line 2: label must have at most 15 digits, but got '" + "9" * 199),
        ("path,label\na.jpg,1\nb.jpg,2\n", "labels must start at 0, but run from 1 to 2. Subtract 1."),
        ("path,label\na.jpg,audi\nb.jpg,bmw\n", "If these are class names, rename the column"),
        ("path,class_name\na.jpg,\nb.jpg,x\nc.jpg, \n", "cars.csv, 2 lines (2, 4): `class_name` is empty."),
        ("path,class_name\nhttps://x/a.jpg,x\n", "cars.csv, line 2: `path` is a URL; download the photos"),
        (
            "path,label,class_name\na.jpg,0,x\nb.jpg,0,y\n",
            "cars.csv, line 3: label 0 is 'y' here, but was 'x' before",
        ),
        ("path,label\n,0\n", "cars.csv, line 2: `path` is empty"),
        (
            "path,label,x1,y1,x2,y2\na.jpg,0,5,1,2,3\n",
            "line 2: `1 <= x1 <= x2, 1 <= y1 <= y2` must hold, but got 5, 1, 2, 3",
        ),
        ("path,label\na.jpg,0\na.jpg,0\n", "1 photo is listed more than once: a.jpg. List each photo once."),
        (
            "path,class_name\na.jpg,x\nb.jpg,x\nb.jpg,x\na.jpg,y\n",
            "1 photo is listed under different labels: a.jpg ('x' and 'y'). List each photo once, with one label.",
        ),
        (
            "path,label\n\na.jpg,0\n\nb.jpg,0,1\n",
            "cars.csv, line 5: has 3 cells, but the table has 2 columns: path, label",
        ),
        ("path,label,path\na.jpg,0,b.jpg\n", "has a duplicate column: path, label, path"),
        (
            'path,label\n"a.jpg,0\nb.jpg,1\n',
            "cars.csv, line 2: a quote opens here, but none closes it. Close it, or write",
        ),
        ('path,label\n\na.jpg,"0\nb.jpg,1', "cars.csv, line 3: a quote opens here, but none closes it."),
        (
            'path,label\n"a\r\n.jpg","0"\n"b\n\n.jpg","1\n"c.jpg",1\n',
            "cars.csv, line 4: a quote opens in this row, but",
        ),
        (
            'path,label\n"a\n.jpg","0"\n"b\n\n.jpg","1\nc.jpg,1\n',
            "cars.csv, line 6: a quote opens here, but none closes",
        ),
        ('path,label\na.jpg,0\nb.jpg,"', "cars.csv, line 3: a quote opens here, but none closes it."),
        (
            'path,label\n"a.jpg,0\n' + "b.jpg,1\n" * 20000,
            "cars.csv, line 2: a quote opens in this row, but none closes it",
        ),
        (
            'path,label\na.jpg,0\n"b"b.jpg,0\n',
            "cars.csv, line 3: not a row of a CSV table (',' expected after '\"'). Quote",
        ),
        ("", "cars.csv is empty. It must start with a line of column names"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "cars.csv").write_text(text)
    assert message in refusal(make(tmp_path, kind="csv", file=str(tmp_path / "cars.csv")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "path,class_name\na.jpg,x\nb.jpg,Citroën\n".encode("latin-1"),
            "line 3: byte 0xeb is not UTF-8. A table must be",
        ),
        ("path,class_name\r\n\r\na.jpg,x\r\n€.jpg,x\r\n".encode("cp1252"), "line 4: byte 0x80 is not UTF-8."),
        ("päth".encode("latin-1"), "line 1: byte 0xe4 is not UTF-8."),
        ("path,class_name\na.jpg,x\n".encode("utf-16") + b"x", "line 3: byte 0x78 is not UTF-16-LE."),
    ],
)
def test_tables_in_other_encodings(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "cars.csv").write_bytes(data)
    said = refusal(make(tmp_path, kind="csv", file=str(tmp_path / "cars.csv")))
    assert f"{tmp_path}/cars.csv, {message}" in said
    assert said.endswith("Save it as UTF-8 (in Excel: CSV UTF-8).")


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    said = refusal(make(tmp_path, kind="csv", file=str(tmp_path)))
    assert said == f"the file {tmp_path} cannot be read: Is a directory. Fix `dataset.file` or its permissions."


def test_paths_with_backslashes_are_told_from_missing_ones(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    lines = ["path,class_name", *(f"{name}\\{number}.png,{name}" for name in "ab" for number in range(7))]
    (tmp_path / "cars.csv").write_text("\n".join(lines))
    said = refusal(make(tmp_path, kind="csv", file=str(tmp_path / "cars.csv")))
    assert "  listed with \\ between folders, but there with /; write / in the table: a\\0.png, a\\1.png, " in said
    assert "  missing: a\\6.png, b\\6.png\n" in said
    inner = refusal(make(tmp_path, kind="csv", file=str(tmp_path / "cars.csv"), within=str(tmp_path / "a")))
    assert "b\\0.png" not in inner.split("  missing: ")[0]  # what lies outside is not told
    (tmp_path / "cars.csv").write_text("\n".join(line.replace("\\", "/") for line in lines if "6.png" not in line))
    assert prepare(make(tmp_path, kind="csv", file=str(tmp_path / "cars.csv")))["images"] == 12
