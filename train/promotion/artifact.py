"""The finished promotions of a run on disk, `promotions/<trial>-<recipe>/`: named by trial and fine-tuning recipe.

Promoting a trial with another recipe creates another promotion next to the first. Folders of earlier versions,
`promotions/<trial>/`, are also read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from features.config import Augmentation
from features.runtime.atomic import write_text
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import relative
from search.confirm.ranking import find_confirmation
from search.ranking import Score
from train.config import FinetuneConfig, TrainRun
from train.evaluate import SplitMetrics
from train.finetuning.history import Epoch, read_history

METRICS, MODEL, MARK = "metrics.json", "model.keras", "made_from.txt"
"""The metrics, written last; the network; the digest of what it is made from, written first."""

VERSION = 1
"""The format version of metrics.json, its key `version`, which files of version 1 lack. Increased if an older Headhunt would
misread a newer file."""

_FOLDER = re.compile(r"\d+(?:-[0-9a-f]{8})?")


class Parity(BaseModel):
    """The largest difference in probability between network and head on cached photos before fine-tuning."""

    images: int
    max_abs_difference: float
    tolerance: float


class FrozenAccuracy(BaseModel):
    """Accuracy of the head on the frozen backbone."""

    val_accuracy: float


class TunedAccuracy(BaseModel):
    """Accuracy of the exported network; null for test photos that were not evaluated."""

    val_accuracy: float
    test_accuracy: float | None
    test_top5_accuracy: float | None


class PromotionSummary(BaseModel):
    """The `--json` object of a promotion. `recipe` is null for promotions of earlier versions; `stage` is frozen if no epoch of
    fine-tuning was better."""

    model_config = ConfigDict(frozen=True)

    trial: int
    recipe: str | None
    stage: Literal["frozen", "fine-tuned"]
    folder: str
    frozen: FrozenAccuracy
    tuned: TunedAccuracy
    seconds: float


class PromoteResult(BaseModel):
    """The promotions in the `--json` object of `train promote`, which also has the verdict and the baselines."""

    model_config = ConfigDict(frozen=True)

    promotions: list[PromotionSummary]


class Promotion(BaseModel):
    """A finished promotion: its folder and the contents of metrics.json, whose keys are the fields from `trial` on.

    `frozen` is the head on cached features, `tuned` the exported network. `unfrozen` are the backbone layers whose weights
    fine-tuning changed: those of the phases that led to `best_epoch` (of all phases in promotions of earlier versions).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    folder: Path = Field(exclude=True)
    trial: int
    frozen: SplitMetrics
    tuned: SplitMetrics
    parity: Parity
    unfrozen: list[str]
    finetune: FinetuneConfig
    backend: str = "tensorflow"
    devices: int = 1
    epochs: int
    best_epoch: int
    seconds: float
    versions: dict[str, str]
    made_from: str

    @property
    def recipe(self) -> str:
        """8 hex digits; empty for a promotion of an earlier version."""
        return self.folder.name.partition("-")[2]

    @property
    def history(self) -> list[Epoch]:
        """The epochs of its history.csv; HeadhuntError if the file is missing or damaged."""
        return read_history(self.folder)

    @property
    def is_frozen(self) -> bool:
        """Whether the network is the frozen one, because no epoch of fine-tuning was better."""
        return self.best_epoch == 0

    @property
    def is_head_alone(self) -> bool:
        """Whether fine-tuning changed only the head."""
        return not self.is_frozen and not self.unfrozen

    @property
    def stage(self) -> Literal["frozen", "fine-tuned"]:
        """Whether the exported network is frozen or fine-tuned."""
        return "frozen" if self.is_frozen else "fine-tuned"

    @property
    def rounding(self) -> str:
        """One sentence if the network, exported in float32, has a different validation accuracy than when it was chosen: on the
        cached features, or in the best epoch of training, both of less precision; else empty."""
        frozen, exported = self.frozen.val.accuracy, self.tuned.val.accuracy
        chosen, where = frozen, "on the cached features, which are less precise"
        if not self.is_frozen:
            try:
                chosen = next(each.val_accuracy for each in self.history if each.epoch == self.best_epoch)
            except (HeadhuntError, StopIteration):  # a damaged history.csv is said elsewhere
                return ""
            where = "in its best epoch, in the less precise numbers of training"
            where += f", and {100 * frozen:.1f} % of the frozen network" if exported <= frozen else ""
        if math.isclose(chosen, exported, abs_tol=1e-6):
            return ""
        return (
            f"Exported in float32, it classifies {100 * exported:.1f} % of the validation photos correctly, compared with "
            f"{100 * chosen:.1f} % {where}."
        )

    @property
    def title(self) -> str:
        """Its display name: its trial and recipe."""
        return f"trial {self.trial}" + (f", recipe {self.recipe}" if self.recipe else "")

    def summary(self) -> PromotionSummary:
        """The promotion's `--json` object."""
        val, test = self.tuned.val, self.tuned.test
        return PromotionSummary(
            trial=self.trial,
            recipe=self.recipe or None,
            stage=self.stage,
            folder=relative(self.folder),
            frozen=FrozenAccuracy(val_accuracy=self.frozen.val.accuracy),
            tuned=TunedAccuracy(
                val_accuracy=val.accuracy,
                test_accuracy=test and test.accuracy,
                test_top5_accuracy=test and test.top5_accuracy,
            ),
            seconds=self.seconds,
        )


def ledger_names(folder: Path) -> tuple[str, str]:
    """The names in the test ledger of the frozen head and the exported network of the promotion in this folder."""
    return f"frozen head of {folder.name}", f"exported network of {folder.name}"


def recipe_digest(run: TrainRun, augmentation: Augmentation) -> str:
    """8 hex digits of the recipe with which `run` fine-tunes a trial with this augmentation."""
    parts = [
        run.train.finetune.model_dump_json(),
        *(phase.model_dump_json() for phase in run.train.finetune.plan),
        run.backend,
        run.promotion_devices,
        augmentation,
    ]
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:8]


def promotion_folder(run: TrainRun, trial: int, recipe: str, made_from: str) -> Path:
    """`promotions/<trial>-<recipe>`, or `promotions/<trial>` if an earlier version started the same promotion there."""
    earlier = run.workdir / "promotions" / str(trial)
    try:
        if (earlier / MARK).read_text(encoding="utf-8").strip() == made_from:
            return earlier
    except (OSError, UnicodeDecodeError):
        pass
    return earlier.with_name(f"{trial}-{recipe}")


def write_promotion(promotion: Promotion) -> None:
    """Writes metrics.json atomically, which marks the promotion as finished."""
    write_text(promotion.folder / METRICS, json.dumps(promotion.model_dump(mode="json"), indent=1) + "\n")


def read_promotion(folder: Path) -> Promotion | None:
    """The finished promotion in a folder, or None. Raises HeadhuntError if it is damaged or from a later version."""
    path = folder / METRICS
    if _FOLDER.fullmatch(folder.name) is None or not path.exists():
        return None
    again = "Delete its folder, then rerun `headhunt train promote`."
    try:
        content = {**json.loads(path.read_text(encoding="utf-8")), "folder": folder}
        if content.get("version", VERSION) != VERSION:
            raise HeadhuntError(
                f"{relative(path)} has format version {content['version']}, but this version of Headhunt reads version "
                f"{VERSION}. Update Headhunt to read it."
            )
        found = Promotion.model_validate(content)
        if found.trial != int(folder.name.partition("-")[0]):
            raise ValueError(f"it belongs to trial {found.trial}")
    except (ValueError, TypeError, OSError) as error:
        reason = f"{error.error_count()} values are missing or wrong" if isinstance(error, ValidationError) else error
        raise HeadhuntError(f"{relative(path)} is damaged ({reason}). {again}") from None
    return found


def find_promotions(run: TrainRun) -> list[Promotion]:
    """The finished promotions, best first, without damaged ones: in the order of `search confirm` if it has been run, then by the
    search's objective and the loss of the fine-tuned network on the validation photos."""
    confirmation = find_confirmation(run)

    def key(each: Promotion) -> tuple[int, Score, int, str]:
        place = confirmation.place(each.trial) if confirmation else 0
        return place, each.tuned.val.score(run.search.objective), each.trial, each.recipe

    return sorted((each for each in _read_all(run) if isinstance(each, Promotion)), key=key)


def damaged_promotions(run: TrainRun) -> list[str]:
    """One message for each promotion that cannot be read."""
    return [str(each) for each in _read_all(run) if isinstance(each, HeadhuntError)]


def find_promotion(run: TrainRun, trial: int, recipe: str | None = None) -> Promotion:
    """The best finished promotion of a trial, or the one with this recipe (its first digits are enough); UsageError if there is
    none, HeadhuntError if it is damaged."""
    own = [each for each in find_promotions(run) if each.trial == trial]
    found = [each for each in own if recipe is None or each.recipe.startswith(recipe)]
    if found:
        return found[0]
    for folder in (run.workdir / "promotions").glob(f"{trial}*"):
        if folder.name.split("-")[0] == str(trial):
            read_promotion(folder)
    if own:
        have = ", ".join(each.recipe or "none (an earlier version)" for each in own)
        raise UsageError(f"trial {trial} is not promoted with the recipe {recipe!r}; its recipes: {have}.")
    raise UsageError(
        f"trial {trial} has no finished promotion in {relative(run.workdir / 'promotions')}. Run `headhunt train promote "
        f"--trial {trial}`."
    )


def _read_all(run: TrainRun) -> Iterator[Promotion | HeadhuntError]:
    for folder in sorted((run.workdir / "promotions").glob("*")):
        try:
            found = read_promotion(folder)
        except HeadhuntError as error:
            yield error
            continue
        if found is not None:
            yield found
