"""The photos that `features prepare` left out, and why: `dataset/skipped.csv`, one row per photo."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from features.runtime.atomic import write_text
from features.runtime.errors import DatasetError
from features.runtime.log import relative

COLUMNS = ("path", "reason")


def skipped_file(workdir: Path) -> Path:
    """The path of a run's list."""
    return workdir / "dataset" / "skipped.csv"


def write_skipped(workdir: Path, reasons: Mapping[str, str]) -> None:
    """Writes the photos that were left out, each with its reason; only the header if there are none."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *reasons.items()])
    write_text(skipped_file(workdir), text.getvalue())


def load_skipped(workdir: Path) -> dict[str, str] | None:
    """The reasons by path; None if an earlier version prepared the photos. Raises DatasetError when the file is damaged."""
    path = skipped_file(workdir)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        if not rows or tuple(rows[0]) != COLUMNS:
            raise ValueError("its header is missing")
        return {name: reason for name, reason in rows[1:]}  # noqa: C416  (refuses rows of another length)
    except FileNotFoundError:
        return None
    except (ValueError, OSError, csv.Error) as error:
        raise DatasetError(f"{relative(path)} is damaged ({error}). Rerun `headhunt features prepare`.") from None
