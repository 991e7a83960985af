"""The section `dataset`: one model for each kind of data set, and how photos are split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from features.runtime.section import Section, UserPath


class FractionSplit(Section):
    """A stratified random split of the images; the three shares add up to 1."""

    train: float = Field(0.65, gt=0, lt=1, description="share of the images trained on")
    val: float = Field(0.20, gt=0, lt=1, description="share that ranks the trials")
    test: float = Field(0.15, gt=0, lt=1, description="share that is touched once, at the end")
    seed: int = Field(42, ge=0)

    @model_validator(mode="after")
    def _add_up(self) -> FractionSplit:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, but {self.train} + {self.val} + {self.test} = {total:g}")
        return self


class ColumnSplit(Section):
    """The data set's own split, from the column (or .mat field) of this name; what it lacks is drawn from its training part."""

    column: str = Field(
        "test", min_length=1, description="`test` for Stanford Cars; for csv a column of train|val|test"
    )
    val: float = Field(
        0.20, gt=0, lt=1, description="share of the training part kept for validation where the column names none"
    )
    test: float = Field(
        0.15, gt=0, lt=1, description="share of the training part kept for the test where the column names none"
    )
    seed: int = Field(42, ge=0)

    @model_validator(mode="after")
    def _leave_some(self) -> ColumnSplit:
        if self.val + self.test >= 1:
            raise ValueError(f"val + test must be below 1, but {self.val} + {self.test} = {self.val + self.test:g}")
        return self


def _split_kind(value: Any) -> Any:
    if isinstance(value, dict):
        return ColumnSplit.model_validate(value) if "column" in value else FractionSplit.model_validate(value)
    return value


Split = Annotated[FractionSplit | ColumnSplit, BeforeValidator(_split_kind)]


class DatasetSection(Section):
    """What every kind of data set has."""

    split: Split = FractionSplit()
    on_duplicate: Literal["error", "drop", "keep"] = Field(
        "error",
        description="photos of equal bytes under two labels, or in two splits of the data set's own: error lists them; drop "
        "leaves out all but one, and all of those with two labels; keep keeps them, in one split",
    )
    min_per_class: int = Field(
        0,
        ge=0,
        description="leave out classes with fewer photos; default: none, and classes of fewer than three are an error",
    )
    on_missing: Literal["error", "skip"] = Field(
        "error", description="what a missing or unreadable photo is: a fault or a gap"
    )
    within: UserPath | None = Field(
        None, description="refuse photos that lie, links followed, outside this folder; default: they may lie anywhere"
    )
    max_pixels: int = Field(100_000_000, gt=0, description="larger photos are refused, as width × height")


class StanfordCars(DatasetSection):
    """The Stanford Cars devkit: `cars_annos.mat`, or the original train and test files with `cars_meta.mat`."""

    kind: Literal["stanford_cars"] = "stanford_cars"
    root: UserPath = Field(description="the folder that photo paths start from")
    annotations: UserPath | list[UserPath] = Field(
        Path("cars_annos.mat"), description="the combined .mat, or a list of the devkit's files; relative to root"
    )
    meta: UserPath = Field(
        Path("cars_meta.mat"), description="class names, for the devkit's original files; relative to root"
    )
    crop_to_bbox: bool = Field(False, description="cut each photo to its bounding box, in pixels of the upright photo")


class FolderDataset(DatasetSection):
    """One sub-folder a class, in numeric-aware order.

    Folders called train, val (valid, validation, dev) and test that hold class folders are splits, unless `split` is given;
    `split: {column: folder}` asks for them.
    """

    kind: Literal["folder"] = "folder"
    root: UserPath


class CsvDataset(DatasetSection):
    """A CSV table with the columns path and label or class_name, optionally split, group and x1, y1, x2, y2.

    Photos of one group (a car, a patient, a scene) fall into one split.
    """

    kind: Literal["csv"] = "csv"
    file: UserPath
    root: UserPath | None = Field(
        None, description="the folder that paths start from; default: the folder of the table"
    )
    crop_to_bbox: bool = False


class ToyCars(DatasetSection):
    """Drawn cars, written in the devkit's own format below the run's folder: fine-grained and reproducible."""

    kind: Literal["toy_cars"] = "toy_cars"
    classes: int = Field(24, ge=2, le=196)
    per_class: int = Field(40, ge=3)
    image_size: int = Field(128, ge=16, le=1024, description="pixels on each side")
    seed: int = Field(0, ge=0)
    crop_to_bbox: bool = False


Dataset = Annotated[StanfordCars | FolderDataset | CsvDataset | ToyCars, Field(discriminator="kind")]


class DatasetRun(Section):
    """The part of `headhunt.yaml` that `features prepare` reads."""

    name: str = Field("headhunt", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run and of its study")
    workdir: UserPath = Field(Path("runs/headhunt"), description="the run's folder")
    dataset: Dataset
