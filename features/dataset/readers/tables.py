"""A data set listed in a CSV table."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from features.dataset.config import ColumnSplit, CsvDataset
from features.dataset.index import BOX, SPLITS, Photo, Source
from features.dataset.notes import note
from features.dataset.readers.photo_files import natural_key
from features.dataset.readers.split_folders import split_called
from features.runtime.configfile import shortened
from features.runtime.errors import DatasetError, some

LONGEST_QUOTE = 200
"""Most characters of a file that a message quotes, since it may not be a table."""

MOST_DIGITS = 15
"""Most digits of an integer in a table, with its sign."""

SEPARATORS = ",;\t|"

STATED_SEPARATOR = re.compile(r'"?sep=(\t|[^"\s])"?[ \t]*(\r\n|\r|\n)', re.IGNORECASE)
"""A first line that tells Excel the separator."""


@dataclass(frozen=True)
class Row:
    """One row of a table; `place` is the file and line, for messages."""

    place: str
    line: int
    cells: dict[str, str]

    def whole(self, column: str) -> int:
        """A cell as an integer: `2`, or `2.0` as pandas writes columns with gaps. Raises DatasetError for anything else."""
        cell = self.cells[column]
        if not _is_number(cell):
            got = shortened(repr(cell), LONGEST_QUOTE)
            raise DatasetError(f"{self.place}: {column} must be an integer, but got {got}.")
        digits = cell.partition(".")[0]
        if len(digits) > MOST_DIGITS:
            got = shortened(repr(cell), LONGEST_QUOTE)
            raise DatasetError(
                f"{self.place}: {column} must have at most {MOST_DIGITS} digits, but got {got}. Correct the table."
            )
        return int(digits)


def read_table(dataset: CsvDataset) -> Source:
    """Reads the columns path and `class_name` and/or `label` (0-based), optionally group, the split's column and x1, y1, x2, y2.

    Columns may be named in upper case, unless another one has the name in lower case. Separator and encoding are detected;
    spaces around cells are ignored. Without `label`, classes are numbered in natural order of their names. Raises DatasetError
    naming file and lines.
    """
    file = dataset.file
    columns, rows = _read(file)
    if "path" not in columns or not {"label", "class_name"} & set(columns):
        raise DatasetError(
            f"{file} must have the columns `path`, and `label` or `class_name`, but has {_listed(columns)}."
        )
    column = dataset.split.column if isinstance(dataset.split, ColumnSplit) else None
    if column is not None and column not in columns:
        raise DatasetError(f"{file} has no column {column!r} (`dataset.split.column`), only {_listed(columns)}.")
    unused = next((name for name in columns if name.lower() == "split"), None)
    if column is None and unused:
        note(
            f"{file}: the column `{unused}` is not used, because splits are drawn by shares. "
            f"To use it, set `dataset.split: {{column: {unused}}}`."
        )
    _refuse(file, rows, "path", lambda cell: not cell, "`path` is empty")
    _refuse(file, rows, "path", lambda cell: "://" in cell, "`path` is a URL; download the photos and give file paths")
    labels, names = _classes(file, columns, rows)
    boxed = set(BOX) <= set(columns)
    photos = []
    for row, label in zip(rows, labels, strict=True):
        part = _part(row, column) if column else None
        group = row.cells.get("group") or None
        path = row.cells["path"]
        path = str(Path(path).expanduser()) if path.startswith("~/") else path
        photos.append(Photo(path, label, _box(row) if boxed else None, part, group))
    return Source(photos, names, (dataset.root or file.parent).resolve())


def _part(row: Row, column: str) -> str:
    cell = row.cells[column]
    part = split_called(cell)
    if part is None:
        raise DatasetError(f"{row.place}: {column} is {cell!r}; allowed: {', '.join(SPLITS)}.")
    return part


def _refuse(file: Path, rows: list[Row], column: str, is_wrong: Callable[[str], bool], what: str) -> None:
    """Raises DatasetError with the lines of the rows whose cell is wrong."""
    lines = [row.line for row in rows if is_wrong(row.cells[column])]
    if len(lines) == 1:
        raise DatasetError(f"{file}, line {lines[0]}: {what}.")
    if lines:
        raise DatasetError(f"{file}, {len(lines)} lines ({some(lines)}): {what}.")


def _listed(columns: list[str]) -> str:
    """Column names, shortened for a message."""
    return shortened(", ".join(columns), LONGEST_QUOTE)


def _read(file: Path) -> tuple[list[str], list[Row]]:
    rows: list[Row] = []
    columns: list[str] = []
    for line, cells in _cells(file):
        place = f"{file}, line {line}"
        if not columns:
            columns = _in_lower_case(cells, ("path", "group", *BOX))
            if not {"label", "class_name"} & set(columns):
                columns = _in_lower_case(columns, ("label", "class_name"))
        elif len(cells) != len(columns):
            raise DatasetError(
                f"{place}: has {len(cells)} cells, but the table has {len(columns)} columns: {_listed(columns)}."
            )
        else:
            rows.append(Row(place, line, dict(zip(columns, cells, strict=True))))
    if not columns:
        raise DatasetError(
            f"{file} is empty. It must start with a line of column names: `path`, and `label` or `class_name`."
        )
    if len(set(columns)) < len(columns):
        raise DatasetError(f"{file} has a duplicate column: {_listed(columns)}.")
    return columns, rows


def _cells(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty: the line on which each ends, and its cells without the blanks around them."""
    text = _text(file)
    if stated := STATED_SEPARATOR.match(text):
        separator, text = stated[1], stated[2] + text[stated.end() :]  # an empty line in its place
    else:
        first = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(SEPARATORS, key=lambda mark: (_has_path(first, mark), first.count(mark)))  # a comma on a tie
    lines = list(io.StringIO(text, newline=""))
    reader, end = csv.reader(lines, strict=True, delimiter=separator), 0
    try:
        for cells in reader:
            end = reader.line_num
            if cells:
                yield end, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise _broken_row(file, lines[end : reader.line_num], end, separator, error) from None


def _broken_row(file: Path, lines: list[str], before: int, separator: str, error: csv.Error) -> DatasetError:
    """The error about a row that `csv` cannot read: `lines` up to the fault, of a file that has as many lines `before`."""
    end, advice = before + len(lines), "Close it, or write a quote that belongs to a cell twice."
    if "unexpected end" in str(error):
        last = next(csv.reader(lines, delimiter=separator))[-1]  # not strict: all after the quote that opens
        begin = end + 1 - max(1, len(list(io.StringIO(last, newline=""))))
        return DatasetError(f"{file}, line {begin}: a quote opens here, but none closes it. {advice}")
    if len(lines) > 1:
        return DatasetError(
            f"{file}, line {before + 1}: a quote opens in this row, but none closes it up to line {end} ({error}). {advice}"
        )
    return DatasetError(
        f"{file}, line {end}: not a row of a CSV table ({error}). Quote the cell whole, its quotes twice."
    )


def _text(file: Path) -> str:
    """The text of a file in UTF-8, or in the encoding that a byte order mark indicates, as spreadsheets write it."""
    try:
        data = file.read_bytes()
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"there is no file {file}. Fix `dataset.file`.") from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(error.encoding) + "."
        raise DatasetError(
            f"{file}, line {len(before.encode().splitlines())}: byte 0x{error.object[error.start]:02x} is not "
            f"{error.encoding.upper()}. A table must be in UTF-8, or in UTF-16 with a byte order mark. Save it as UTF-8 "
            "(in Excel: CSV UTF-8)."
        ) from None
    except OSError as error:
        raise DatasetError(
            f"the file {file} cannot be read: {error.strerror}. Fix `dataset.file` or its permissions."
        ) from None


def _in_lower_case(columns: list[str], names: Sequence[str]) -> list[str]:
    """The columns, those in lower case that are then one of these `names` and no other column."""
    return [name.lower() if name.lower() in names and name.lower() not in columns else name for name in columns]


def _has_path(line: str, separator: str) -> bool:
    """Whether a line split by this separator has a cell `path`; other column names may contain other separators."""
    return "path" in [cell.strip(" \"'").lower() for cell in line.split(separator)]


def _classes(file: Path, columns: list[str], rows: list[Row]) -> tuple[list[int], tuple[str, ...]]:
    if "class_name" in columns:
        _refuse(file, rows, "class_name", lambda cell: not cell, "`class_name` is empty")
    if "label" not in columns:
        order = {
            name: label for label, name in enumerate(sorted({row.cells["class_name"] for row in rows}, key=natural_key))
        }
        return [order[row.cells["class_name"]] for row in rows], tuple(order)
    _refuse(file, rows, "label", lambda cell: not cell, "`label` is empty")
    named = [row for row in rows if not _is_number(row.cells["label"])]
    if named and len(named) == len(rows) and "class_name" not in columns:
        raise DatasetError(
            f"{named[0].place}: label must be an integer, but got "
            f"{shortened(repr(named[0].cells['label']), LONGEST_QUOTE)}. If these are class names, rename the column to "
            "`class_name`."
        )
    _refuse(file, rows, "label", lambda cell: not _is_number(cell), "`label` must be an integer")
    names: dict[int, str] = {}
    labels = []
    for row in rows:
        label = row.whole("label")
        if label < 0:
            raise DatasetError(f"{row.place}: labels must be at least 0, but got {label}.")
        name = row.cells.get("class_name", f"class_{label}")
        if names.setdefault(label, name) != name:
            raise DatasetError(f"{row.place}: label {label} is {name!r} here, but was {names[label]!r} before.")
        labels.append(label)
    largest = max(names, default=-1)
    gaps = largest + 1 - len(names)
    if gaps == 1 and 0 not in names:
        raise DatasetError(f"{file}: labels must start at 0, but run from 1 to {largest}. Subtract 1.")
    if gaps:  # maybe billions, if the label is an id
        first = list(islice((label for label in range(largest) if label not in names), 5))
        more = f" and {gaps - len(first)} more" if gaps > len(first) else ""
        raise DatasetError(
            f"{file}: labels must be 0, 1, 2, … without gaps, but {some(first)}{more} "
            f"{'is' if gaps == 1 else 'are'} missing from 0 to {largest}. Renumber the classes, or give only "
            "`class_name`."
        )
    return labels, tuple(names[label] for label in range(len(names)))


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+(\.0*)?", cell) is not None


def _box(row: Row) -> tuple[int, int, int, int] | None:
    if not any(row.cells[name] for name in BOX):
        return None
    x1, y1, x2, y2 = (row.whole(name) for name in BOX)
    if not (1 <= x1 <= x2 and 1 <= y1 <= y2):
        raise DatasetError(f"{row.place}: `1 <= x1 <= x2, 1 <= y1 <= y2` must hold, but got {x1}, {y1}, {x2}, {y2}.")
    return x1, y1, x2, y2
