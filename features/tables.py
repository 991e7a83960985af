"""A data set listed in a CSV table."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from features.config import ColumnSplit, CsvDataset
from features.configfile import shortened
from features.dataset import BOX, SPLITS, Photo, Source
from features.errors import DatasetError
from features.folders import natural_key

LONGEST_QUOTE = 200
"""Characters of a file that a message quotes at most: it may be no table."""


@dataclass(frozen=True)
class Row:
    """One row of a table; `place` is the file and the line, for messages."""

    place: str
    cells: dict[str, str]

    def whole(self, column: str) -> int:
        """A cell as a whole number; DatasetError when it is none."""
        try:
            return int(self.cells[column])
        except ValueError:
            got = shortened(repr(self.cells[column]), LONGEST_QUOTE)
            raise DatasetError(f"{self.place}: {column} must be a whole number, but got {got}.") from None


def read_table(dataset: CsvDataset) -> Source:
    """Reads the columns path and `class_name` and/or `label` (0-based), optionally the split's column and x1, y1, x2, y2.

    Without `label`, classes are numbered in numeric-aware order of their names. Raises DatasetError naming file and line.
    """
    file = dataset.file
    columns, rows = _read(file)
    if "path" not in columns or not {"label", "class_name"} & set(columns):
        raise DatasetError(f"{file} has the columns {_listed(columns)}; needed: `path`, and `label` or `class_name`.")
    column = dataset.split.column if isinstance(dataset.split, ColumnSplit) else None
    if column is not None and column not in columns:
        raise DatasetError(
            f"{file} has no column {column!r}, which `dataset.split.column` names; it has {_listed(columns)}."
        )
    labels, names = _classes(file, columns, rows)
    boxed = set(BOX) <= set(columns)
    photos = []
    for row, label in zip(rows, labels, strict=True):
        if not row.cells["path"]:
            raise DatasetError(f"{row.place}: `path` is empty.")
        part = row.cells[column] if column else None
        if part is not None and part not in SPLITS:
            raise DatasetError(f"{row.place}: {column} is {part!r}; allowed: {', '.join(SPLITS)}.")
        photos.append(Photo(row.cells["path"], label, _box(row) if boxed else None, part))
    return Source(photos, names, (dataset.root or file.parent).resolve())


def _listed(columns: list[str]) -> str:
    """Names of columns, as many as a message has room for."""
    return shortened(", ".join(columns), LONGEST_QUOTE)


def _read(file: Path) -> tuple[list[str], list[Row]]:
    rows: list[Row] = []
    columns: list[str] = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            for cells in filter(None, reader):
                place = f"{file}, line {reader.line_num}"
                if not columns:
                    columns = cells
                elif len(cells) != len(columns):
                    raise DatasetError(
                        f"{place}: there are {len(cells)} cells, but {len(columns)} columns: {_listed(columns)}."
                    )
                else:
                    rows.append(Row(place, dict(zip(columns, cells, strict=True))))
    except FileNotFoundError:
        raise DatasetError(f"there is no file {file}. Correct `dataset.file`.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file} is not a readable CSV table in UTF-8: {error}.") from None
    if not columns:
        raise DatasetError(f"{file} is empty; needed: a line of column names, `path` and `label` or `class_name`.")
    if len(set(columns)) < len(columns):
        raise DatasetError(f"{file} names a column twice: {_listed(columns)}.")
    return columns, rows


def _classes(file: Path, columns: list[str], rows: list[Row]) -> tuple[list[int], tuple[str, ...]]:
    if "label" not in columns:
        order = {
            name: label for label, name in enumerate(sorted({row.cells["class_name"] for row in rows}, key=natural_key))
        }
        return [order[row.cells["class_name"]] for row in rows], tuple(order)
    names: dict[int, str] = {}
    labels = []
    for row in rows:
        label = row.whole("label")
        if label < 0:
            raise DatasetError(f"{row.place}: labels start at 0, but got {label}.")
        name = row.cells.get("class_name", f"class_{label}")
        if names.setdefault(label, name) != name:
            raise DatasetError(f"{row.place}: label {label} is called {name!r} here and {names[label]!r} before.")
        labels.append(label)
    gaps = sorted(set(range(len(names))) - set(names))
    if gaps:
        raise DatasetError(f"{file}: labels must be 0, 1, 2, … without gaps, but {gaps[0]} is missing.")
    return labels, tuple(names[label] for label in range(len(names)))


def _box(row: Row) -> tuple[int, int, int, int] | None:
    if not any(row.cells[name] for name in BOX):
        return None
    x1, y1, x2, y2 = (row.whole(name) for name in BOX)
    if not (1 <= x1 <= x2 and 1 <= y1 <= y2):
        raise DatasetError(f"{row.place}: `1 <= x1 <= x2, 1 <= y1 <= y2` must hold, but got {x1}, {y1}, {x2}, {y2}.")
    return x1, y1, x2, y2
