"""The dataset index: the photos, their labels and their splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from features.dataset.config import CsvDataset, DatasetRun, FolderDataset, StanfordCars
from features.runtime.atomic import atomic_path, write_text
from features.runtime.errors import DatasetError, UsageError

SPLITS = ("train", "val", "test")
COLUMNS = ("path", "label", "class_name", "split", "x1", "y1", "x2", "y2", "width", "height", "sha256")
NOT_OF_THE_INDEX = {"crop_to_bbox"}
"""Keys of the `dataset` section that do not affect the index."""
BOX = ["x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class Photo:
    """One annotated photo, before its file is read.

    `path` is relative to the data set's root, `label` 0-based. `box` is (x1, y1, x2, y2) in pixels of the upright photo (EXIF
    orientation applied), in the Stanford devkit's convention: 1-based, both ends inclusive. `part` is the photo's split if the
    data set has its own; photos of one `group`, if any, stay in the same split.
    """

    path: str
    label: int
    box: tuple[int, int, int, int] | None = None
    part: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Source:
    """The contents of a data set's own files: its photos in order, and the class names by label."""

    photos: list[Photo]
    class_names: tuple[str, ...]
    root: Path


@dataclass(frozen=True)
class DatasetIndex:
    """Every photo with its label, split, bounding box, size and sha256; the row number is the photo's id.

    `table` has the columns COLUMNS: `label` int, `x1`…`y2` Int64 (empty if there is no box; see Photo), `width` and
    `height` in pixels, `sha256` of the file's bytes in hex. `root` is the absolute folder that `path` is relative to.
    """

    table: pd.DataFrame
    class_names: tuple[str, ...]
    root: Path

    def of_split(self, split: str) -> pd.DataFrame:
        """The rows of one split, in order; their pandas index is the row number in the whole table."""
        return self.table[self.table["split"] == split]

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the class names and each row's bytes, label, split and box.

        Paths are excluded, so a data set may be moved.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        columns = self.table[["sha256", "label", "split", *BOX]]
        digest.update(columns.to_csv(index=False, header=False, lineterminator="\n").encode())
        return digest.hexdigest()


def index_path(run: DatasetRun) -> Path:
    """The path of a run's index."""
    return run.workdir / "dataset" / "index.csv"


def images_root(run: DatasetRun) -> Path:
    """The absolute folder that the index's paths are relative to."""
    match run.dataset:
        case StanfordCars(root=root) | FolderDataset(root=root):
            return root.resolve()
        case CsvDataset(file=file, root=folder):
            return (folder or file.parent).resolve()
        case _:
            return (run.workdir / "dataset" / "toy_cars").resolve()


def write_index(run: DatasetRun, index: DatasetIndex, skipped: int, notes: Sequence[str] = ()) -> None:
    """Writes `dataset/index.csv`, then `dataset/prepared.json`, without which the index is not valid. `notes` are remarks about
    the data, one sentence each."""
    path, sidecar = index_path(run), _sidecar(run)
    sidecar.unlink(missing_ok=True)  # an old sidecar must not be paired with the new index
    with atomic_path(path) as temporary:
        index.table.to_csv(temporary, index=False, lineterminator="\n")
    prepared = {
        "dataset": _prepared_from(run),
        "class_names": index.class_names,
        "skipped": skipped,
        "notes": list(notes),
    }
    write_text(sidecar, json.dumps(prepared, indent=2) + "\n")


def _sidecar(run: DatasetRun) -> Path:
    return index_path(run).with_name("prepared.json")


def load_notes(run: DatasetRun) -> list[str] | None:
    """The remarks about the data that `headhunt features prepare` recorded, one sentence each; None if an earlier version
    prepared it, or the file is missing.

    Raises DatasetError when the file is damaged.
    """
    try:
        notes = json.loads(_sidecar(run).read_text(encoding="utf-8")).get("notes")
        return None if notes is None else [str(note) for note in notes]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise _damaged(_sidecar(run), error) from None


def _damaged(path: Path, error: Exception) -> DatasetError:
    return DatasetError(f"{path} is damaged ({error}). Rerun `headhunt features prepare`.")


def load_index(run: DatasetRun) -> DatasetIndex:
    """Reads the index that `headhunt features prepare` wrote for this configuration.

    Raises UsageError when it is missing or the `dataset` section has changed since, DatasetError when it is damaged.
    """
    path, sidecar = index_path(run), _sidecar(run)
    try:
        prepared = json.loads(sidecar.read_text(encoding="utf-8"))
        names, earlier = tuple(prepared["class_names"]), prepared["dataset"]
    except FileNotFoundError:
        raise UsageError(f"there is no dataset index at {path}. Run `headhunt features prepare`.") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise _damaged(sidecar, error) from None
    try:
        table = _read_table(path)
    except FileNotFoundError:
        raise UsageError(f"there is no dataset index at {path}. Run `headhunt features prepare`.") from None
    except (ValueError, OSError) as error:  # pandas raises these for a truncated file
        raise DatasetError(
            f"{path} is damaged ({str(error).splitlines()[0]}). Rerun `headhunt features prepare`."
        ) from None
    before, now = _with_defaults(run, earlier), _prepared_from(run)
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        keys = ", ".join(f"dataset.{key} (was {before.get(key)!r}, is {now.get(key)!r})" for key in changed)
        raise UsageError(
            f"the index {path} was made with another configuration: {keys}. Run `headhunt features prepare`."
        )
    return DatasetIndex(table, names, images_root(run))


def _read_table(path: Path) -> pd.DataFrame:
    texts = dict.fromkeys(("path", "class_name", "split", "sha256"), "string")
    table = pd.read_csv(
        path,
        dtype={**texts, **dict.fromkeys(BOX, "Int64")},
        keep_default_na=False,
        na_values={name: [""] for name in BOX},
    )
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise DatasetError(f"{path} lacks the columns {', '.join(missing)}. Rerun `headhunt features prepare`.")
    if len(table) == 0 or not (table["split"].isin(SPLITS) & (table["sha256"].str.len() == 64)).all():
        raise DatasetError(f"{path} is damaged (its last line is cut off). Rerun `headhunt features prepare`.")
    return table


def _prepared_from(run: DatasetRun) -> dict[str, object]:
    """The part of the `dataset` section that the index depends on."""
    return run.dataset.model_dump(mode="json", exclude=NOT_OF_THE_INDEX)


def _with_defaults(run: DatasetRun, section: dict[str, object]) -> dict[str, object]:
    """A stored `dataset` section with today's defaults for keys that an earlier version did not have."""
    try:
        return type(run.dataset).model_validate(section).model_dump(mode="json", exclude=NOT_OF_THE_INDEX)
    except ValidationError:  # of another kind of data set
        return section
