"""Earlier runs, read from CSV files of Keras training histories."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from features.runtime.errors import UsageError
from reports.config import HistoryConfig, HistoryFile, Run
from reports.models.learning import MEASURES, LearningCurve, draw, draw_together
from reports.section import Block, LeftOutError, PageSection, Table
from reports.style import share

NEEDED = ("loss", "accuracy", "val_loss", "val_accuracy")

RATES = ("lr", "learning_rate")
"""Names of the learning rate in Keras 2 and Keras 3; a history may lack it."""

SHOWN = 200
"""Maximum characters of a wrong header in a message."""


class Part(NamedTuple):
    """One file of a run: its epochs (first, last) as the figure counts them, how many of them were discarded later, the epoch
    that it resumes from (0: it begins the run), and the rule that chose that epoch."""

    file: str
    epochs: tuple[int, int]
    thrown_away: int
    resumed_from: int
    rule: str


class EarlierRun(NamedTuple):
    """The curve of a run, and its parts in order."""

    curve: LearningCurve
    parts: list[Part]


RULES = {
    "best": "the lowest validation loss of part {}",
    "best_accuracy": "the highest validation accuracy of part {}",
    "last": "the last of part {}",
}


def read_history(path: Path, where: str) -> pd.DataFrame:
    """The MEASURES of one file, one row per epoch; the learning rate is NaN if it was not recorded.

    Raises UsageError, beginning with `where`, for a file that is missing, not CSV, or lacks a column or a number.
    """
    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except FileNotFoundError:
        raise UsageError(
            f"{where}: file not found: {path}. Correct the path, or remove it from `reports.histories`."
        ) from None
    except OSError as error:
        raise UsageError(f"{where}: {path} cannot be read: {error.strerror}. It must be a CSV file.") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"{where}: {path} is not a CSV file ({reason}). {_allowed()}") from None
    missing = [name for name in NEEDED if name not in table]
    if missing:
        header = ", ".join(map(str, table.columns))
        shown = header if len(header) <= SHOWN else f"{header[: SHOWN - 1]}…"
        raise UsageError(f"{where}: {path} lacks {', '.join(missing)}; its columns are {shown}. {_allowed()}")
    rate = next((name for name in RATES if name in table), None)
    measured = table[list(NEEDED)].assign(learning_rate=table[rate] if rate else np.nan)
    numbers = pd.DataFrame({name: pd.to_numeric(column, errors="coerce") for name, column in measured.items()})
    for name in measured:
        wrong = np.flatnonzero(numbers[name].isna() & measured[name].notna())
        if len(wrong):
            value = measured[name].iloc[wrong[0]]
            raise UsageError(f"{where}: {path}, line {wrong[0] + 2}: {name} is {value!r}, not a number. {_allowed()}")
    if numbers[["val_loss", "val_accuracy"]].dropna().empty:
        raise UsageError(f"{where}: {path} has no epoch with a validation loss and accuracy. {_allowed()}")
    return numbers


def _allowed() -> str:
    return (
        f"It must be a Keras training history: a header with {', '.join(NEEDED)} (and lr if it was recorded), then a line of "
        "numbers for each epoch. Write one with keras.callbacks.CSVLogger, or remove it from `reports.histories`."
    )


def collect(history: HistoryConfig, where: str) -> EarlierRun:
    """Stitches the parts of a run: each continues after the epoch that it resumes from, and later epochs are marked as discarded.

    Raises UsageError like `read_history`, and for an epoch that the previous part does not have.
    """
    stitched, parts = pd.DataFrame(), []
    for number, file in enumerate(history.parts, 1):
        own = f"{where}.files.{number - 1}"
        table, resumed, rule = read_history(file.path, own), 0, ""
        if number > 1:
            before = stitched["part"] == number - 1
            resumed = _resumed_from(file, stitched[before], own)
            stitched.loc[before & (stitched["epoch"] > resumed), "thrown_away"] = True
            rule = RULES.get(str(file.resumed_from), "as the configuration says").format(number - 1)
        epochs = np.arange(resumed + 1, resumed + 1 + len(table))
        stitched = pd.concat([stitched, table.assign(epoch=epochs, part=number, thrown_away=False)], ignore_index=True)
        parts.append(Part(file.path.name, (resumed + 1, resumed + len(table)), 0, resumed, rule))
    gone = stitched.groupby("part")["thrown_away"].sum().tolist()
    parts = [part._replace(thrown_away=int(count)) for part, count in zip(parts, gone, strict=True)]
    return EarlierRun(LearningCurve(history.name, stitched[["epoch", "part", "thrown_away", *MEASURES]]), parts)


def _resumed_from(part: HistoryFile, before: pd.DataFrame, where: str) -> int:
    """The epoch of the previous part that this one resumes from."""
    epochs = before["epoch"]
    match part.resumed_from:
        case "best":
            return int(epochs.iloc[int(np.nanargmin(before["val_loss"]))])
        case "best_accuracy":
            return int(epochs.iloc[int(np.nanargmax(before["val_accuracy"]))])
        case "last":
            return int(epochs.max())
        case epoch:
            if epoch not in set(epochs):
                raise UsageError(
                    f"{where}.resumed_from: received {epoch}; the previous part has epochs {epochs.min()} to "
                    f"{epochs.max()}, as the figure counts them. It must be one of these, best, best_accuracy or last."
                )
            return epoch


def describe(run: EarlierRun) -> str:
    """Sentences on how a run's parts resume from each other, and what it reached."""
    best, lowest = run.curve.best, run.curve.lowest_loss
    said = [] if len(run.parts) > 1 else [f"From {run.parts[0].file}."]
    for number, (before, part) in enumerate(itertools.pairwise(run.parts), 2):
        away, later = before.thrown_away, "epoch" if before.thrown_away == 1 else "epochs"
        gone = f"; the {away} later {later} of part {number - 1}, drawn faintly, were discarded" if away else ""
        said.append(f"Part {number} resumes from epoch {part.resumed_from}, {part.rule}{gone}.")
    said.append(
        f"The highest validation accuracy is {share(best['val_accuracy'])} at epoch {best['epoch']:.0f}, the lowest validation "
        f"loss {lowest['val_loss']:.3f} at epoch {lowest['epoch']:.0f}."
    )
    return " ".join(said)


def _files(run: EarlierRun) -> Table:
    """A row for each part."""
    rows = []
    for number, part in enumerate(run.parts, 1):
        table = run.curve.table
        first, last = part.epochs
        numbers = [str(number), f"{first:,} to {last:,}", str(part.thrown_away)]
        rows.append([*numbers, _rates(table[table["part"] == number]), part.file])
    return Table(["part", "epochs", "discarded", "learning rate", "file"], rows, {0, 1, 2}, "Its files")


def _rates(table: pd.DataFrame) -> str:
    rates = table["learning_rate"].dropna()
    if rates.empty:
        return "not recorded"
    first, last = f"{rates.iloc[0]:.2g}", f"{rates.iloc[-1]:.2g}"
    return first if first == last else f"{first} to {last}"


def section(run: Run) -> PageSection:
    """A table of all runs, and a figure for each; LeftOutError if none is listed, UsageError for a file that is not a history."""
    histories = run.reports.histories
    if not histories:
        raise LeftOutError(
            "No earlier runs are listed: `reports.histories: [{name: …, files: [history.csv]}]` shows Keras training histories."
        )
    runs = [collect(history, f"reports.histories.{number}") for number, history in enumerate(histories)]
    rows = []
    for curve, parts in runs:
        best = curve.best
        numbers = [f"{len(curve.kept):,}", f"{best['epoch']:.0f}", share(best["accuracy"]), share(best["val_accuracy"])]
        loss = f"{curve.lowest_loss['val_loss']:.3f}"
        rows.append([curve.name, str(len(parts)), *numbers, loss, _rates(curve.table)])
    columns = ["run", "files", "epochs", "best epoch", "train", "val", "lowest val loss", "learning rate"]
    text = (
        "Runs that were trained with other tools, from their Keras training histories. Epochs are counted along the weights that "
        "were kept; a star marks the best epoch, the one with the highest validation accuracy."
    )
    curves = [one.curve for one in runs]
    figures = {"earlier-runs": draw_together(curves)} if len(curves) > 1 else {}
    blocks = []
    for number, one in enumerate(runs, 1):
        tables = [_files(one)] if len(one.parts) > 1 else []
        blocks.append(Block(one.curve.name, describe(one), {f"earlier-run-{number}": draw(one.curve, "part")}, tables))
    return PageSection("histories", "Earlier runs", text, figures, [Table(columns, rows, set(range(1, 7)))], blocks)
