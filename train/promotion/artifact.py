"""The finished promotions of a run on disk, `promotions/<trial>-<recipe>/`: named by trial and by how it was fine-tuned.

Promoting a trial with another recipe makes another promotion beside the first. Folders of earlier versions,
`promotions/<trial>/`, are read too.
"""

from __future__ import annotations

import hashlib
import json
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
"""What was measured, written last; the network; what it is made from, written first."""

VERSION = 1
"""The format of metrics.json: its key `version`, which files of format 1 do not have. Raised where an older Headhunt would
misread a newer file."""

_FOLDER = re.compile(r"\d+(?:-[0-9a-f]{8})?")


class Parity(BaseModel):
    """How far network and head were apart on cached photos before fine-tuning, as the largest difference of a probability."""

    images: int
    max_abs_difference: float
    tolerance: float


class FrozenAccuracy(BaseModel):
    """Of the head on the frozen backbone."""

    val_accuracy: float


class TunedAccuracy(BaseModel):
    """Of the exported network; null where the test photos were not evaluated."""

    val_accuracy: float
    test_accuracy: float | None
    test_top5_accuracy: float | None


class PromotionSummary(BaseModel):
    """The `--json` object of a promotion. `recipe` is null for one of earlier versions; `stage` is frozen where no epoch of
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
    """A finished promotion: its folder, and what metrics.json says, whose keys are the fields from `trial` on.

    `frozen` is the head on cached features, `tuned` the network as it is exported. `unfrozen` are the layers of the backbone
    whose weights fine-tuning changed: those of the phases that led to `best_epoch`; in promotions of earlier versions those of
    all phases.
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
        """8 hex digits; empty for a promotion of earlier versions."""
        return self.folder.name.partition("-")[2]

    @property
    def history(self) -> list[Epoch]:
        """The epochs of its history.csv; HeadhuntError where the file is missing or damaged."""
        return read_history(self.folder)

    @property
    def is_frozen(self) -> bool:
        """Whether no epoch of fine-tuning was better than the frozen network, which it then is."""
        return self.best_epoch == 0

    @property
    def is_head_alone(self) -> bool:
        """Whether fine-tuning changed the head and nothing of the backbone."""
        return not self.is_frozen and not self.unfrozen

    @property
    def stage(self) -> Literal["frozen", "fine-tuned"]:
        """What the exported network is."""
        return "frozen" if self.is_frozen else "fine-tuned"

    @property
    def rounding(self) -> str:
        """A sentence where a frozen network, exported in float32, judges other validation photos rightly than its head did on the
        cached features, which were computed or stored in less; else empty."""
        cached, exported = self.frozen.val.accuracy, self.tuned.val.accuracy
        if not self.is_frozen or cached == exported:
            return ""
        return (
            f"In float32, as it is exported, it has {100 * exported:.1f} % of the validation photos right, against "
            f"{100 * cached:.1f} % on the cached features, which are less precise."
        )

    @property
    def title(self) -> str:
        """What it is called: its trial, with its recipe."""
        return f"trial {self.trial}" + (f", recipe {self.recipe}" if self.recipe else "")

    def summary(self) -> PromotionSummary:
        """What `--json` says of it."""
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
    """What the test ledger calls the frozen head and the exported network of the promotion in a folder."""
    return f"frozen head of {folder.name}", f"exported network of {folder.name}"


def recipe_digest(run: TrainRun, augmentation: Augmentation) -> str:
    """8 hex digits of how `run` fine-tunes a trial whose photos are augmented like this."""
    parts = [
        run.train.finetune.model_dump_json(),
        *(phase.model_dump_json() for phase in run.train.finetune.plan),
        run.backend,
        run.promotion_devices,
        augmentation,
    ]
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:8]


def promotion_folder(run: TrainRun, trial: int, recipe: str, made_from: str) -> Path:
    """`promotions/<trial>-<recipe>`; where an earlier version made or began the same, its `promotions/<trial>`."""
    earlier = run.workdir / "promotions" / str(trial)
    try:
        if (earlier / MARK).read_text(encoding="utf-8").strip() == made_from:
            return earlier
    except OSError:
        pass
    return earlier.with_name(f"{trial}-{recipe}")


def write_promotion(promotion: Promotion) -> None:
    """Writes metrics.json, atomically: from then on the promotion is finished."""
    write_text(promotion.folder / METRICS, json.dumps(promotion.model_dump(mode="json"), indent=1) + "\n")


def read_promotion(folder: Path) -> Promotion | None:
    """The finished promotion in a folder; None where there is none. Raises HeadhuntError where it is damaged, or of a later
    version."""
    path = folder / METRICS
    if _FOLDER.fullmatch(folder.name) is None or not path.exists():
        return None
    again = "Delete its folder, then run `headhunt train promote` again."
    try:
        content = {**json.loads(path.read_text(encoding="utf-8")), "folder": folder}
        if content.get("version", VERSION) != VERSION:
            raise HeadhuntError(
                f"{relative(path)} has format version {content['version']}, but this version of Headhunt reads version "
                f"{VERSION}. Update Headhunt to read it."
            )
        found = Promotion.model_validate(content)
        if found.trial != int(folder.name.partition("-")[0]):
            raise ValueError(f"it is of trial {found.trial}")
    except (ValueError, TypeError, OSError) as error:
        reason = f"{error.error_count()} values are missing or wrong" if isinstance(error, ValidationError) else error
        raise HeadhuntError(f"{relative(path)} is damaged ({reason}). {again}") from None
    return found


def find_promotions(run: TrainRun) -> list[Promotion]:
    """The finished promotions, best first, without damaged ones: in the order of `search confirm` where it has been run, then by
    the search's objective and the loss of the fine-tuned network on the validation photos."""
    confirmation = find_confirmation(run)

    def key(each: Promotion) -> tuple[int, Score, int, str]:
        place = confirmation.place(each.trial) if confirmation else 0
        return place, each.tuned.val.score(run.search.objective), each.trial, each.recipe

    return sorted((each for each in _read_all(run) if isinstance(each, Promotion)), key=key)


def damaged_promotions(run: TrainRun) -> list[str]:
    """What is wrong with promotions that cannot be read, a sentence each."""
    return [str(each) for each in _read_all(run) if isinstance(each, HeadhuntError)]


def find_promotion(run: TrainRun, trial: int, recipe: str | None = None) -> Promotion:
    """The best finished promotion of a trial, or the one of a recipe (its first digits are enough); UsageError where there is
    none, HeadhuntError where it is damaged."""
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
