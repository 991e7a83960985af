"""A data set listed in a CSV table."""

from __future__ import annotations

import pandas as pd

from features.config import ColumnSplit, CsvDataset
from features.dataset import BOX, SPLITS, Photo, Source
from features.errors import DatasetError
from features.folders import natural_key


def read_table(dataset: CsvDataset) -> Source:
    """Reads the columns path and `class_name` and/or `label` (0-based), optionally the split's column and x1, y1, x2, y2.

    Without `label`, classes are numbered in numeric-aware order of their names. Raises DatasetError naming file and row.
    """
    file = dataset.file
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise DatasetError(f"there is no file {file}. Correct `dataset.file`.") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DatasetError(f"{file} is not a readable CSV table: {error}.") from None
    if "path" not in table or not {"label", "class_name"} & set(table):
        raise DatasetError(
            f"{file} has the columns {', '.join(map(str, table.columns))}; needed: `path`, and `label` or `class_name`."
        )
    column = dataset.split.column if isinstance(dataset.split, ColumnSplit) else None
    if column is not None and column not in table:
        raise DatasetError(
            f"{file} has no column {column!r}, which `dataset.split.column` names; it has {', '.join(map(str, table.columns))}."
        )
    labels, names = _classes(dataset, table)
    boxed = set(BOX) <= set(table)
    photos = []
    for number, row in enumerate(table.to_dict("records")):
        if not row["path"]:
            raise DatasetError(f"{_row(dataset, number)}: `path` is empty.")
        box = None
        if boxed and any(row[name] for name in BOX):
            x1, y1, x2, y2 = (_whole(dataset, number, name, row[name]) for name in BOX)
            if not (1 <= x1 <= x2 and 1 <= y1 <= y2):
                raise DatasetError(
                    f"{_row(dataset, number)}: `1 <= x1 <= x2, 1 <= y1 <= y2` must hold, but got {x1}, {y1}, {x2}, {y2}."
                )
            box = (x1, y1, x2, y2)
        part = row[column] if column else None
        if part is not None and part not in SPLITS:
            raise DatasetError(f"{_row(dataset, number)}: {column} is {part!r}; allowed: {', '.join(SPLITS)}.")
        photos.append(Photo(row["path"], labels[number], box, part))
    return Source(photos, names, (dataset.root or file.parent).resolve())


def _classes(dataset: CsvDataset, table: pd.DataFrame) -> tuple[list[int], tuple[str, ...]]:
    if "label" not in table:
        order = {name: label for label, name in enumerate(sorted(set(table["class_name"]), key=natural_key))}
        return [order[name] for name in table["class_name"]], tuple(order)
    labels = [_whole(dataset, number, "label", text) for number, text in enumerate(table["label"])]
    if labels and min(labels) < 0:
        raise DatasetError(f"{_row(dataset, labels.index(min(labels)))}: labels start at 0, but got {min(labels)}.")
    texts = table["class_name"] if "class_name" in table else [f"class_{label}" for label in labels]
    names: dict[int, str] = {}
    for number, (label, name) in enumerate(zip(labels, texts, strict=True)):
        if names.setdefault(label, name) != name:
            raise DatasetError(
                f"{_row(dataset, number)}: label {label} is called {name!r} here and {names[label]!r} before."
            )
    gaps = sorted(set(range(len(names))) - set(names))
    if gaps:
        raise DatasetError(f"{dataset.file}: labels must be 0, 1, 2, … without gaps, but {gaps[0]} is missing.")
    return labels, tuple(names[label] for label in range(len(names)))


def _whole(dataset: CsvDataset, number: int, name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DatasetError(f"{_row(dataset, number)}: {name} must be a whole number, but got {text!r}.") from None


def _row(dataset: CsvDataset, number: int) -> str:
    return f"{dataset.file}, line {number + 2}"
