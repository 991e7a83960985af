"""SeedRun: one training of a leader with one seed, and the files in `confirm/` that store them.

A file holds the trainings of one task, is written once, and is named after its content. A confirmation that is killed loses no
finished training, and trainings on disk are found by a key of everything that their numbers depend on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from features.runtime.atomic import write_text
from features.runtime.errors import HeadhuntError
from features.runtime.section import Section
from search.metric import Metric
from search.trial import EpochMetrics, TrialConfig, TrialResult


class SeedRun(Section):
    """The result of one training: `value` is the objective at the best epoch, `curves` the fields of EpochMetrics in order.

    `key` digests everything the training depends on; `trial` and `seed` are for people. Non-finite numbers are null.
    """

    key: str
    trial: int
    seed: int
    value: float | None
    best_epoch: int
    failure: str | None
    curves: tuple[tuple[float | None, ...], ...]

    @classmethod
    def of(cls, key: str, trial: int, seed: int, objective: Metric, result: TrialResult) -> SeedRun:
        """The record of a result."""
        best = getattr(result.curves[result.best_epoch - 1], objective) if result.best_epoch else None
        return cls(
            key=key,
            trial=trial,
            seed=seed,
            value=best,
            best_epoch=result.best_epoch,
            failure=result.failure,
            curves=tuple(
                tuple(float(n) if math.isfinite(n) else None for n in metrics) for metrics in result.curves
            ),
        )  # fmt: skip

    @property
    def val_loss(self) -> float:
        """The validation loss at the best epoch; infinite if there is none."""
        found = self.curves[self.best_epoch - 1][EpochMetrics._fields.index("val_loss")] if self.best_epoch else None
        return math.inf if found is None else found


_FILE = TypeAdapter(tuple[SeedRun, ...])


def run_key(
    cache: str, function: str, objective: Metric, lanes: int, config: TrialConfig, train_share: float = 1.0
) -> str:
    """sha256 (hex) of what a training depends on: the cache's key, the digest of a hypermodel's function, the objective (it
    chooses the epoch), the number of lanes (rounding), the configuration with its seed, and the share of training photos."""
    shares = [] if train_share == 1 else [train_share]
    parts = [cache, function, objective, lanes, config.model_dump(mode="json"), *shares]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_runs(workdir: Path, runs: Sequence[SeedRun]) -> None:
    """Writes the trainings of a task as one file, atomically: all or none."""
    name = hashlib.sha256("".join(run.key for run in runs).encode()).hexdigest()[:16]
    write_text(workdir / "confirm" / f"{name}.json", _FILE.dump_json(tuple(runs)).decode() + "\n")


def load_runs(workdir: Path) -> dict[str, SeedRun]:
    """Every training on disk by key; HeadhuntError for an unreadable file."""
    found: dict[str, SeedRun] = {}
    for path in sorted((workdir / "confirm").glob("[!.]*.json")):
        try:
            runs = _FILE.validate_json(path.read_bytes())
        except (ValidationError, OSError) as error:
            raise HeadhuntError(
                f"{path} cannot be read: {str(error).splitlines()[0]}. Delete it; its trainings will be rerun."
            ) from error
        found |= {run.key: run for run in runs}
    return found
