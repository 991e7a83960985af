"""A trial's files on disk: trials/<number>/trial.yaml, curves.csv, and weights.npz for the best ones."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from features.runtime.atomic import atomic_path, read_text, write_text
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import relative
from features.runtime.own_tables import read_whole_table
from search.trial import EpochMetrics, TrialConfig, TrialResult


def trial_folder(workdir: Path, number: int) -> Path:
    """`trials/<number>`."""
    return workdir / "trials" / str(number)


def claim_trials(workdir: Path, study: str) -> None:
    """Marks `trials/` as this study's; UsageError if it belongs to another study, whose trials would be overwritten."""
    path = workdir / "trials" / "study.txt"
    if not path.exists():
        write_text(path, study + "\n")
    advice = (
        f"If the trials in {path.parent} belong to {study!r}, delete this file and rerun the same command; otherwise use another "
        "`workdir`."
    )
    owner = read_text(path, advice).strip()
    if owner != study:
        raise UsageError(
            f"{path.parent} holds the trials of the study {owner!r}, and {study!r} would overwrite them. "
            "Use another `workdir`."
        )


def write_trial(workdir: Path, number: int, config: TrialConfig, result: TrialResult) -> None:
    """Writes a trial's configuration, curves and best weights."""
    folder = trial_folder(workdir, number)
    write_text(folder / "trial.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    curves = pd.DataFrame(result.curves, columns=list(EpochMetrics._fields))
    with atomic_path(folder / "curves.csv") as temporary:
        curves.to_csv(temporary, index=False, lineterminator="\n")
    if result.weights:
        write_weights(workdir, number, result.weights)


def write_weights(workdir: Path, number: int, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Writes the weights of a trial's best epoch."""
    with atomic_path(trial_folder(workdir, number) / "weights.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, **weights)  # type: ignore[arg-type]


def are_kept(workdir: Path, number: int) -> bool:
    """Whether a trial's weights are on disk."""
    return (trial_folder(workdir, number) / "weights.npz").exists()


def keep_weights(workdir: Path, numbers: Iterable[int]) -> None:
    """Deletes the weights of every trial that is not among `numbers`."""
    kept = {str(number) for number in numbers}
    for file in (workdir / "trials").glob("*/weights.npz"):
        if file.parent.name not in kept:
            file.unlink()


def load_weights(workdir: Path, number: int) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of a trial's best epoch, by `<layer>.<weight>`; HeadhuntError if they were not kept or cannot be read."""
    path = trial_folder(workdir, number) / "weights.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except FileNotFoundError:
        raise HeadhuntError(
            f"the weights of trial {number} are not in {path.parent}: only the best `search.keep` trials keep their weights. "
            "Choose another trial, or raise `search.keep` before the next search."
        ) from None
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        reason = "it is a folder" if path.is_dir() else str(error).rstrip(".")
        raise HeadhuntError(
            f"{relative(path)} is damaged ({reason}). `headhunt train promote` retrains trial {number} from its seed."
        ) from error


def load_curves(workdir: Path, number: int) -> pd.DataFrame:
    """The curves of a trial: one row per epoch, the columns of EpochMetrics; HeadhuntError if they are missing or damaged."""
    path = trial_folder(workdir, number) / "curves.csv"
    try:
        curves = read_whole_table(path)
        if curves.empty or not set(EpochMetrics._fields) <= set(curves):
            raise ValueError("columns or epochs are missing")
        curves.astype(np.float64)  # raises ValueError for text
    except FileNotFoundError:
        raise HeadhuntError(f"trial {number} has no curves at {relative(path)}.") from None
    except (ValueError, OSError) as error:
        raise HeadhuntError(f"{relative(path)} is damaged ({str(error).splitlines()[0]}).") from None
    return curves
