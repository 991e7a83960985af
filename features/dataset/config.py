"""The section `dataset`: one model for each kind of data set, and how photos are split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from features.runtime.section import Section, UserPath


class FractionSplit(Section):
    """A stratified random split of the photos; the three shares add up to 1."""

    train: float = Field(0.65, gt=0, lt=1, description="share of the photos for training")
    val: float = Field(0.20, gt=0, lt=1, description="share for ranking trials")
    test: float = Field(0.15, gt=0, lt=1, description="share for the final test, used once at the end")
    seed: int = Field(42, ge=0)

    @model_validator(mode="after")
    def _add_up(self) -> FractionSplit:
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, but {self.train} + {self.val} + {self.test} = {total:g}")
        return self


class ColumnSplit(Section):
    """The data set's own split, from this column (or .mat field); missing splits are drawn from its training part."""

    column: str = Field(
        "test", min_length=1, description="`test` for Stanford Cars; for csv, a column with train|val|test"
    )
    val: float = Field(
        0.20, gt=0, lt=1, description="share of the training part used for validation if the column has no val"
    )
    test: float = Field(
        0.15, gt=0, lt=1, description="share of the training part used for testing if the column has no test"
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
    """Keys of every kind of data set."""

    split: Split = FractionSplit()
    on_duplicate: Literal["error", "drop", "keep"] = Field(
        "error",
        description="identical photos with two labels, or in two of the data set's own splits: error lists them; drop keeps "
        "one of each, and none of those with two labels; keep keeps all, in one split",
    )
    min_per_class: int = Field(
        0,
        ge=0,
        description="leave out classes with fewer photos; default: leave out none (fewer than three photos are an error)",
    )
    on_missing: Literal["error", "skip"] = Field(
        "error", description="whether missing or unreadable photos are an error or skipped"
    )
    within: UserPath | None = Field(
        None, description="reject photos outside this folder, after resolving links; default: anywhere"
    )
    max_pixels: int = Field(100_000_000, gt=0, description="reject photos with more pixels (width × height)")


class StanfordCars(DatasetSection):
    """The Stanford Cars devkit: `cars_annos.mat`, or the original train and test files with `cars_meta.mat`."""

    kind: Literal["stanford_cars"] = "stanford_cars"
    root: UserPath = Field(description="the folder that photo paths are relative to")
    annotations: UserPath | list[UserPath] = Field(
        Path("cars_annos.mat"), description="the combined .mat file, or a list of the devkit's files; relative to root"
    )
    meta: UserPath = Field(
        Path("cars_meta.mat"), description="class names, for the devkit's original files; relative to root"
    )
    crop_to_bbox: bool = Field(False, description="crop each photo to its bounding box, in pixels of the upright photo")


class FolderDataset(DatasetSection):
    """One subfolder per class, in natural order (class_2 before class_10).

    Folders called train, val (valid, validation, dev) and test that contain class folders are splits, unless `split` is given;
    `split: {column: folder}` requests them. A class called like a split needs a `split` by shares in the configuration.
    """

    kind: Literal["folder"] = "folder"
    root: UserPath


class CsvDataset(DatasetSection):
    """A CSV table with the columns path and label or class_name, optionally split, group and x1, y1, x2, y2.

    Photos of one group (a car, a patient, a scene) go into the same split.
    """

    kind: Literal["csv"] = "csv"
    file: UserPath
    root: UserPath | None = Field(
        None, description="the folder that paths are relative to; default: the table's folder"
    )
    crop_to_bbox: bool = False


class ToyCars(DatasetSection):
    """Generated drawings of cars, in the devkit's format below the workdir: fine-grained and reproducible."""

    kind: Literal["toy_cars"] = "toy_cars"
    classes: int = Field(24, ge=2, le=196)
    per_class: int = Field(40, ge=3)
    image_size: int = Field(128, ge=16, le=1024, description="pixels on each side")
    seed: int = Field(0, ge=0)
    crop_to_bbox: bool = False


Dataset = Annotated[StanfordCars | FolderDataset | CsvDataset | ToyCars, Field(discriminator="kind")]


class DatasetRun(Section):
    """The part of `headhunt.yaml` that `features prepare` reads."""

    name: str = Field("headhunt", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name of the run and its study")
    workdir: UserPath = Field(Path("runs/headhunt"), description="the run's folder")
    dataset: Dataset
