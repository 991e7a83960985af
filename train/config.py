"""The `train` section of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from features.augment import resolve_policy
from features.backbones import image_size
from features.config import Augmentation, Section
from search.config import SearchRun
from search.schedules import Constant, Plateau, PlateauRule, Schedule, ScheduleConfig


class FinetuneConfig(Section):
    """The full run: backbone and head on freshly augmented photos, the last convolutional layers unfrozen."""

    augmentation: Augmentation | None = Field(
        None, description="in the forms of features.augmentation, which is the default"
    )
    clean_share: float | None = Field(
        None, ge=0, le=1, description="share of an epoch's photos left as they are; default: the trial's views"
    )
    unfreeze_conv_layers: int = Field(
        5, ge=0, description="the last convolutional layers to train; batch normalisation stays frozen"
    )
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-5, gt=0, description="of Adam")
    plateau: PlateauRule | None = PlateauRule()
    schedule: Schedule | None = Field(None, description="instead of learning_rate and plateau")
    early_stopping_epochs: int | None = Field(
        None, ge=1, description="stop where validation accuracy has not risen for so long"
    )
    label_smoothing: float | None = Field(None, ge=0, lt=1, description="default: the trial's")
    seed: int = Field(0, ge=0)

    @property
    def followed(self) -> ScheduleConfig:
        """The schedule that the run follows: `schedule`, or else `learning_rate` with or without `plateau`."""
        if self.schedule is not None:
            return self.schedule
        followed = Constant() if self.plateau is None else Plateau(**self.plateau.model_dump())
        return followed.model_copy(update={"learning_rate": self.learning_rate})


class SimpleCnnConfig(Section):
    """The simple CNN from scratch: four convolutions with pooling, a hidden layer of 256, dropout 0.5."""

    image_size: int = Field(128, ge=16, le=1024, description="pixels on each side")
    epochs: int = Field(30, ge=1)
    early_stopping_epochs: int = Field(5, ge=1, description="stop where validation accuracy has not risen for so long")
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    seed: int = Field(0, ge=0)


class BaselinesConfig(Section):
    """What the promoted models are compared with."""

    neighbours: tuple[PositiveInt, ...] = Field(
        (1, 3, 5, 10, 20), min_length=1, description="the numbers that validation chooses among"
    )
    l2: tuple[PositiveFloat, ...] = Field(
        (1.0, 0.1, 0.01, 0.001, 0.0001),
        min_length=1,
        description="the penalties of the linear probe that validation chooses among",
    )
    simple_cnn: SimpleCnnConfig | None = Field(
        None, description="a mapping, {} for its defaults, trains a CNN from scratch too (slow)"
    )


Format = Literal["keras", "savedmodel", "onnx", "litert", "config"]
"""What a promoted network is exported as."""


class TrainConfig(Section):
    """Promotion of the best trials into full fine-tuning runs."""

    top: int = Field(1, ge=1, description="how many winners are fine-tuned")
    finetune: FinetuneConfig = FinetuneConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    formats: tuple[Format, ...] | None = Field(
        None, description="what is exported; default: every format that can be written here"
    )


class TrainRun(SearchRun):
    """The part of `headhunt.yaml` that the train stage reads."""

    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _known_augmentation(self) -> TrainRun:
        """Refused here, not after the hours of the stages before."""
        value = self.train.finetune.augmentation
        if value is not None:
            resolve_policy(value, "train.finetune.augmentation", image_size(self.features))
        return self
