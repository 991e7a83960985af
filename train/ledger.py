"""The test ledger of a run, `test_ledger.csv`: every evaluation on the test photos, so that readers know how often they were
used.

A line is added before the evaluation, so that interrupted ones count too; lines are never removed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Set
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from features.runtime.atomic import make_folder
from features.runtime.errors import HeadhuntError
from features.runtime.log import counted, relative

COLUMNS = ("time", "command", "model", "photos")


class Evaluation(NamedTuple):
    """One evaluation on the test photos: when (ISO 8601, UTC), by which command, of which model, and how many photos."""

    time: str
    command: str
    model: str
    photos: int


def ledger_file(workdir: Path) -> Path:
    """`test_ledger.csv`."""
    return workdir / "test_ledger.csv"


def record_test_evaluation(workdir: Path, command: str, model: str, photos: int) -> None:
    """Adds a line; safe for several processes at once. Raises HeadhuntError if it cannot be written."""
    path = ledger_file(workdir)
    try:
        with make_folder(workdir).joinpath(path.name).open("a", encoding="utf-8", newline="") as file:
            lines = [] if file.tell() else [COLUMNS]
            lines.append((datetime.now(UTC).isoformat(timespec="seconds"), command, model, str(photos)))
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(lines)
            file.write(text.getvalue())
    except OSError as error:
        raise HeadhuntError(f"cannot write {relative(path)}: {error.strerror}.") from error


def load_ledger(workdir: Path) -> list[Evaluation]:
    """The evaluations so far, in order; empty if there are none. Raises HeadhuntError if the file is damaged."""
    path = ledger_file(workdir)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if tuple(row) != COLUMNS]
        return [Evaluation(time, command, model, int(photos)) for time, command, model, photos in rows]
    except FileNotFoundError:
        return []
    except (ValueError, OSError, csv.Error) as error:
        raise HeadhuntError(
            f"{relative(path)} is damaged ({error}). Repair it by hand: each line must have {', '.join(COLUMNS)}."
        ) from None


def ledger_sentence(workdir: Path, tested: Set[str]) -> str:
    """One sentence on how often the test photos were used; `tested` are the models, by their names in the ledger, for which the
    run's folder has test results. Earlier versions evaluated without counting."""
    try:
        evaluations = load_ledger(workdir)
    except HeadhuntError as error:
        return f"It is unknown how often the test photos were used: {error}"
    known, name = {each.model for each in evaluations}, ledger_file(workdir).name
    uncounted, models = len(tested - known), len(tested | known)
    times = len(evaluations) + uncounted
    if not times:
        return "The test photos were not used."
    if not uncounted and times == 1:
        return "The test photos were used once."
    often = f"{'at least ' if uncounted else ''}{counted(times, 'time')}"
    told = f"The test photos were evaluated {often}, on {counted(models, 'model')}; {name}"
    if uncounted:
        return f"{told} has no line for {uncounted} of the models, because earlier versions wrote none."
    return f"{told} lists when and by which command."
