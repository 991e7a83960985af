"""Tables that cannot be read: where, what was found, what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

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
        ("path,label\na.jpg,0\na.jpg,0\n", "1 photo is listed more than once; the first is a.jpg"),
        (
            "path,label\n\na.jpg,0\n\nb.jpg,0,1\n",
            "cars.csv, line 5: has 3 cells, but the table has 2 columns: path, label",
        ),
        ("path,label,path\na.jpg,0,b.jpg\n", "has a duplicate column: path, label, path"),
        ('path,label\n"a.jpg,0\n', "is not a readable CSV table"),
        ("", "cars.csv is empty. It must start with a line of column names"),
    ],
)
def test_wrong_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "cars.csv").write_text(text)
    assert message in refusal(make(tmp_path, kind="csv", file=str(tmp_path / "cars.csv")))
