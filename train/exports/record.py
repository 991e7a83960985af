"""The record of a bundle, `.bundle.json`: which promotion its files belong to, by their digests.

Modification times are no evidence: copying a folder changes them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from features.runtime.atomic import file_sha256, write_text
from features.runtime.errors import HeadhuntError
from features.runtime.log import log, relative
from train.exports.runtimes import RUNTIMES, versions
from train.verdict import Verdict

PARTS: dict[str, tuple[str, ...]] = {
    **{name: (runtime.file,) for name, runtime in RUNTIMES.items()},
    "config": ("headhunt.yaml", "optuna.json", "keras_tuner.json"),
}
"""The files or folders of each format."""


class Comparison(BaseModel):
    """The largest difference of a format's probabilities from the promotion's, and the `versions` of its runtime."""

    difference: float
    versions: str


class BundleRecord(BaseModel):
    """The name of the promotion's folder, the sha256 (hex) of its network, the sha256 of every file by name, and how each format
    compared."""

    promotion: str = ""
    model: str = ""
    files: dict[str, str] = {}
    compared: dict[str, Comparison] = {}


class ExportedFormat(BaseModel):
    """A format of a bundle in the `--json` object of `train export`. `max_abs_difference` is the largest difference in
    probability from the promotion's predictions, at most `tolerance`."""

    model_config = ConfigDict(frozen=True)

    path: str
    tolerance: float
    max_abs_difference: float


class ExportedConfig(BaseModel):
    """The format `config`: paths of the configuration and of the hyperparameters for other tools, with no network to compare."""

    model_config = ConfigDict(frozen=True)

    path: str
    max_abs_difference: None = None
    optuna: str
    keras_tuner: str


class ExportResult(BaseModel):
    """The `--json` object of `train export`; `recipe` is null for a promotion by an earlier version, `photos` is the number of
    validation photos on which each format was compared."""

    model_config = ConfigDict(frozen=True)

    verdict: Verdict
    trial: int
    recipe: str | None
    folder: str
    photos: int
    formats: dict[str, ExportedFormat | ExportedConfig]


class BundleFiles:
    """The files of a bundle's folder, all from one promotion."""

    def __init__(self, folder: Path, promotion: str, model: str) -> None:
        """Deletes recorded files that are not exactly those of this promotion; files without a record stay."""
        self._folder = folder
        recorded = _read(folder)
        own = recorded.model == model
        self._record = recorded if own else BundleRecord(promotion=promotion, model=model)
        for format_, parts in PARTS.items():
            if self.is_current(format_):
                continue
            for path in (folder / part for part in parts if part in recorded.files and (folder / part).exists()):
                log.print(f"Removed {relative(path)}: it does not match the promotion {promotion}.")
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def unrecorded(self) -> list[tuple[str, Path]]:
        """The files without a record, e.g. of earlier versions, with their formats; their promotion is unknown."""
        paths = [(format_, self._folder / part) for format_, parts in PARTS.items() for part in parts]
        return [(format_, path) for format_, path in paths if path.exists() and path.name not in self._record.files]

    def is_current(self, format_: str) -> bool:
        """Whether a format exists unchanged as written from this promotion."""
        paths = [self._folder / part for part in PARTS[format_]]
        return all(path.exists() and self._record.files.get(path.name) == digest(path) for path in paths)

    def difference(self, format_: str) -> float | None:
        """How far a current format's probabilities are from the promotion's; None if not compared in the installed runtime."""
        known = self._record.compared.get(format_)
        return known.difference if known and known.versions == versions(format_) and self.is_current(format_) else None

    def add(self, format_: str, difference: float | None) -> None:
        """Records that a format was written and, unless it has no network, compared."""
        self._record.files.update({part: digest(self._folder / part) for part in PARTS[format_]})
        if difference is not None:
            self._record.compared[format_] = Comparison(difference=difference, versions=versions(format_))
        write_text(_path(self._folder), self._record.model_dump_json(indent=1) + "\n")

    def paths(self) -> dict[str, str]:
        """The first file of each current format, as a path to show."""
        return {name: relative(self._folder / parts[0]) for name, parts in PARTS.items() if self.is_current(name)}


def holds_another(folder: Path, model: str) -> bool:
    """Whether a bundle's folder has recorded files of another network than the one with this sha256 (hex)."""
    recorded = _read(folder)
    return recorded.model != model and any((folder / name).exists() for name in recorded.files)


def check_unchanged(model_file: Path) -> None:
    """Raises HeadhuntError if a model is not the one that the record beside it names; does nothing if there is no record."""
    recorded = _read(model_file.parent).files.get(model_file.name)
    if recorded is not None and recorded != digest(model_file):
        raise HeadhuntError(
            f"{relative(model_file)} is damaged or was replaced: it is not the model recorded in .bundle.json beside it. Restore "
            "a copy of it, or export it again with `headhunt train export`."
        )


def digest(path: Path) -> str:
    """The sha256 (hex) of a file's bytes; for a folder, of its files' names and digests."""
    if not path.is_dir():
        return file_sha256(path)
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    named = [(file.relative_to(path).as_posix(), file_sha256(file)) for file in inside]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _path(folder: Path) -> Path:
    return folder / ".bundle.json"


def _read(folder: Path) -> BundleRecord:
    try:
        return BundleRecord.model_validate_json(_path(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return BundleRecord()
