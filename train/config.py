"""The `train` section of the configuration."""

from __future__ import annotations

import hashlib
import math
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from features.augmentation.augment import resolve_policy
from features.backbones.table import image_size
from features.config import Augmentation
from features.dataset.index import SPLITS
from features.runtime.section import Section
from features.runtime.workers.config import Workers
from search.config import SearchRun
from search.optimizers import Adam, Optimizer
from search.schedules import Constant, Plateau, PlateauRule, Schedule, ScheduleConfig


class Recipe(Section):
    """How long and with which optimiser and rates something is trained, and when it stops early."""

    epochs: int = Field(50, ge=1)
    optimizer: Optimizer = Adam()
    learning_rate: float = Field(1e-5, gt=0, description="the first rate; with a schedule, the schedule's own counts")
    plateau: PlateauRule | None = PlateauRule()
    schedule: Schedule | None = Field(None, description="instead of learning_rate and plateau")
    depth_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="the rate is multiplied by this once for every trained layer on the way to the input",
    )
    early_stopping_epochs: int | None = Field(
        None, ge=1, description="stop where search.objective has not improved on the validation photos for so long"
    )

    @property
    def followed(self) -> ScheduleConfig:
        """The schedule that is followed: `schedule`, or else `learning_rate` with or without `plateau`."""
        if self.schedule is not None:
            return self.schedule
        followed = Constant() if self.plateau is None else Plateau(**self.plateau.model_dump())
        return followed.model_copy(update={"learning_rate": self.learning_rate})


class PhaseConfig(Recipe):
    """A part of the full run: what is trained besides the head, and how. Batch normalisation stays frozen in every phase."""

    unfreeze: NonNegativeInt | str = Field(
        "head",
        description="head | all | the number of last convolutional layers | the name of the layer from which on all are trained",
    )

    @property
    def title(self) -> str:
        """What is trained, in words."""
        match self.unfreeze:
            case "head" | 0:
                return "the head"
            case "all":
                return "the head and the whole backbone"
            case int(count):
                return f"the head and the last {count} convolutional layer{'s' if count > 1 else ''}"
            case name:
                return f"the head and the backbone from {name} on"


PRESETS: dict[str, tuple[PhaseConfig, ...]] = {
    "seed_2021": (
        PhaseConfig(unfreeze=5, epochs=15, learning_rate=1e-5),
        PhaseConfig(unfreeze=5, epochs=35, learning_rate=8e-6),
    ),
    "head_then_last_5": (
        PhaseConfig(unfreeze="head", epochs=10, learning_rate=1e-4, early_stopping_epochs=3),
        PhaseConfig(unfreeze=5, epochs=40, learning_rate=1e-5, early_stopping_epochs=10),
    ),
}
"""Phases by the name of a recipe. `seed_2021`: half of ResNet101's last block, Adam at 1e-5 and, from the best checkpoint on, at
8e-6, both halved where the validation loss has stood still for 5 epochs, floor 1e-6."""


class FinetuneConfig(Recipe):
    """The full run on augmented photos: one phase in which the last convolutional layers are unfrozen; or a preset, or phases.

    A phase begins with the best weights so far.
    """

    augmentation: Augmentation | None = Field(
        None,
        description="a policy's name, Keras layers or {policy | layers, clean_probability}; default: that of the trial's views",
    )
    clean_share: float | None = Field(
        None, ge=0, le=1, description="share of an epoch's photos left as they are; default: the trial's views"
    )
    unfreeze_conv_layers: int = Field(
        5, ge=0, description="the last convolutional layers to train; batch normalisation stays frozen"
    )
    preset: Literal["seed_2021", "head_then_last_5"] | None = Field(None, description="a recipe by name, instead")
    phases: tuple[PhaseConfig, ...] | None = Field(None, min_length=1, description="one after the other, instead")
    activation_copies: int = Field(
        0,
        ge=0,
        description="K: what is frozen in all phases is computed once, for K augmented copies of the training photos, and only "
        "the rest is trained, from these cached activations; 0: another view in every epoch, through the whole network",
    )
    batch_size: int = Field(32, ge=1)
    label_smoothing: float | None = Field(None, ge=0, lt=1, description="default: the trial's")
    seed: int = Field(0, ge=0)

    @property
    def digest(self) -> str:
        """16 hex digits by which this recipe is known again, whether from cached activations or not."""
        known = self.model_copy(update={"activation_copies": 0})
        return hashlib.sha256(known.model_dump_json().encode()).hexdigest()[:16]

    @property
    def plan(self) -> tuple[PhaseConfig, ...]:
        """The phases of the run."""
        if self.phases is not None:
            return self.phases
        if self.preset is not None:
            return PRESETS[self.preset]
        one = {name: getattr(self, name) for name in Recipe.model_fields}
        return (PhaseConfig(unfreeze=self.unfreeze_conv_layers, **one),)

    def rate_key(self, phase: int) -> str:
        """The configuration's key of the learning rate that a phase (from 1) begins with."""
        owner = "train.finetune"
        if self.phases is not None:
            owner += f".phases.{phase - 1}"
        elif self.preset is not None:
            return f"{owner}.preset"
        followed = self.plan[phase - 1].schedule
        return f"{owner}.schedule.learning_rate" if followed else f"{owner}.learning_rate"

    @model_validator(mode="after")
    def _one_plan(self) -> FinetuneConfig:
        given = [name for name in ("preset", "phases") if getattr(self, name) is not None]
        single = ("unfreeze_conv_layers", *Recipe.model_fields)
        changed = [name for name in single if getattr(self, name) != type(self).model_fields[name].get_default()]
        if len(given) == 2 or (given and changed):
            also = "preset" if len(given) == 2 else changed[0]
            raise ValueError(
                f"both {given[-1]} and {also} are given, but {given[-1]} says it all by itself. Leave one of them out"
            )
        return self


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
    simple_cnn: SimpleCnnConfig | None = Field(
        None, description="a mapping, {} for its defaults, trains a CNN from scratch too (slow)"
    )


Format = Literal["keras", "savedmodel", "onnx", "litert", "config"]
"""What a promoted network is exported as."""


class TrainConfig(Section):
    """Promotion of the best trials into full fine-tuning runs."""

    top: int = Field(1, ge=1, description="how many winners are fine-tuned")
    fidelity_floor: float = Field(
        0.7, ge=-1, le=1, description="warn where `headhunt reports fidelity` found a lower rank correlation"
    )
    workers: Workers | None = Field(
        None,
        description="how many promotions run at once, and what each is given; more than one GPU: data-parallel; default: as "
        "features.workers",
    )
    finetune: FinetuneConfig = FinetuneConfig()
    evaluate_test: bool = Field(
        True, description="false: promotions and baselines leave the test photos alone, until it is true again"
    )
    baselines: BaselinesConfig = BaselinesConfig()
    formats: tuple[Format, ...] | None = Field(
        None, description="what is exported; default: every format that can be written here"
    )


class TrainRun(SearchRun):
    """The part of `headhunt.yaml` that the train stage reads."""

    train: TrainConfig = TrainConfig()

    @property
    def promotion_workers(self) -> Workers:
        """What `train.workers` says, or one worker at a time of the kind that computes features."""
        return self.train.workers or self.features.workers.model_copy(update={"count": 1, "cpus": None})

    def with_workers(self, count: int | None, executor: str | None) -> Self:
        """The run with as many workers for promotions, and where they run; None: as it is."""
        changed = {name: value for name, value in (("count", count), ("executor", executor)) if value is not None}
        if not changed:
            return self
        workers = self.promotion_workers.model_copy(update=changed)
        return self.model_copy(update={"train": self.train.model_copy(update={"workers": workers})})

    @property
    def backend(self) -> Literal["jax", "tensorflow"]:
        """Keras's backend for whole networks: JAX on GPUs, TensorFlow on CPUs."""
        return "jax" if self.promotion_workers.gpus else "tensorflow"

    @property
    def promotion_devices(self) -> int:
        """How many devices a promotion trains on, with a share of a batch each."""
        return max(1, math.ceil(self.promotion_workers.gpus))

    @property
    def evaluated_splits(self) -> tuple[str, ...]:
        """The splits that promotions and baselines are measured on."""
        return tuple(split for split in SPLITS if split != "test" or self.train.evaluate_test)

    @model_validator(mode="after")
    def _known_augmentation(self) -> TrainRun:
        """Refused here, not after the hours of the stages before."""
        value = self.train.finetune.augmentation
        if value is not None:
            resolve_policy(value, "train.finetune.augmentation", image_size(self.features))
        return self
