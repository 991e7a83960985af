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
    """Length, optimiser, learning rates and early stopping of a training."""

    epochs: int = Field(50, ge=1)
    optimizer: Optimizer = Adam()
    learning_rate: float = Field(1e-5, gt=0, description="the first rate; with a schedule, the schedule's own is used")
    plateau: PlateauRule | None = PlateauRule()
    schedule: Schedule | None = Field(None, description="replaces learning_rate and plateau")
    depth_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="multiplies the rate once per trained layer towards the input",
    )
    early_stopping_epochs: int | None = Field(
        None,
        ge=1,
        description="stop after this many epochs without improvement of search.objective on the validation photos",
    )

    @property
    def followed(self) -> ScheduleConfig:
        """The effective schedule: `schedule`, or else `learning_rate` with or without `plateau`."""
        if self.schedule is not None:
            return self.schedule
        followed = Constant() if self.plateau is None else Plateau(**self.plateau.model_dump())
        return followed.model_copy(update={"learning_rate": self.learning_rate})


class PhaseConfig(Recipe):
    """A phase of fine-tuning: what is trained besides the head, and how. Batch normalisation stays frozen in every phase."""

    unfreeze: NonNegativeInt | str = Field(
        "head",
        description="head | all | the number of last convolutional layers | the name of the first backbone layer to train",
    )

    @property
    def title(self) -> str:
        """What is trained, as text."""
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
"""Phases by preset name. `seed_2021`: half of ResNet101's last block, Adam at 1e-5, then from the best checkpoint at 8e-6, both
halved after 5 epochs without a lower validation loss, floor 1e-6."""


class FinetuneConfig(Recipe):
    """Fine-tuning on augmented photos: one phase that unfreezes the last convolutional layers, or a preset, or phases.

    Each phase starts from the best weights so far.
    """

    augmentation: Augmentation | None = Field(
        None,
        description="a policy's name, Keras layers or {policy | layers, clean_probability}; default: that of the trial's views",
    )
    clean_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of an epoch's photos left as they are; default: that of the trial's views, or 0 if it was trained on "
        "clean photos alone: a whole network would learn those by heart",
    )
    unfreeze_conv_layers: int = Field(
        5, ge=0, description="the last convolutional layers to train; batch normalisation stays frozen"
    )
    preset: Literal["seed_2021", "head_then_last_5"] | None = Field(None, description="a named recipe instead")
    phases: tuple[PhaseConfig, ...] | None = Field(None, min_length=1, description="consecutive phases instead")
    activation_copies: int = Field(
        0,
        ge=0,
        description="K: the layers frozen in all phases are computed once, for K augmented copies of the training photos, and "
        "the rest is trained from these cached activations; 0: fresh views every epoch, through the whole network",
    )
    batch_size: int = Field(32, ge=1)
    label_smoothing: float | None = Field(None, ge=0, lt=1, description="default: the trial's")
    seed: int = Field(0, ge=0)

    @property
    def digest(self) -> str:
        """16 hex digits that identify this recipe, with or without cached activations."""
        known = self.model_copy(update={"activation_copies": 0})
        return hashlib.sha256(known.model_dump_json().encode()).hexdigest()[:16]

    @property
    def plan(self) -> tuple[PhaseConfig, ...]:
        """The phases of fine-tuning."""
        if self.phases is not None:
            return self.phases
        if self.preset is not None:
            return PRESETS[self.preset]
        one = {name: getattr(self, name) for name in Recipe.model_fields}
        return (PhaseConfig(unfreeze=self.unfreeze_conv_layers, **one),)

    def rate_key(self, phase: int) -> str:
        """The configuration key that sets the first learning rate of a phase (from 1)."""
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
                f"both {given[-1]} and {also} are set, but {given[-1]} defines the whole recipe. Remove one of them"
            )
        return self


class SimpleCnnConfig(Section):
    """The simple CNN from scratch: four convolutions with pooling, a hidden layer of 256, dropout 0.5."""

    image_size: int = Field(128, ge=16, le=1024, description="pixels on each side")
    epochs: int = Field(30, ge=1)
    early_stopping_epochs: int = Field(
        5, ge=1, description="stop after this many epochs without better validation accuracy"
    )
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-3, gt=0, description="Adam's learning rate")
    seed: int = Field(0, ge=0)


class BaselinesConfig(Section):
    """Baselines that the promoted models are compared with."""

    neighbours: tuple[PositiveInt, ...] = Field(
        (1, 3, 5, 10, 20), min_length=1, description="numbers of neighbours that validation chooses among"
    )
    simple_cnn: SimpleCnnConfig | None = Field(
        None, description="set to a mapping ({} for defaults) to also train a CNN from scratch (slow)"
    )


Format = Literal["keras", "savedmodel", "onnx", "litert", "config"]
"""Export formats of a promoted network."""


class TrainConfig(Section):
    """Promotion of the best trials by fine-tuning the whole network."""

    top: int = Field(1, ge=1, description="number of winners to fine-tune")
    fidelity_floor: float = Field(
        0.7, ge=-1, le=1, description="warn if `headhunt reports fidelity` found a lower rank correlation"
    )
    workers: Workers | None = Field(
        None,
        description="how many promotions run at once, and the resources of each; several GPUs train data-parallel; default: like "
        "features.workers, one at a time",
    )
    finetune: FinetuneConfig = FinetuneConfig()
    evaluate_test: bool = Field(
        True, description="false: promotions and baselines do not use the test photos until this is true again"
    )
    baselines: BaselinesConfig = BaselinesConfig()
    formats: tuple[Format, ...] | None = Field(
        None, description="formats to export; default: every format whose packages are installed"
    )


class TrainRun(SearchRun):
    """The part of `headhunt.yaml` that the train stage reads."""

    train: TrainConfig = TrainConfig()

    @property
    def promotion_workers(self) -> Workers:
        """`train.workers`, or else one worker at a time like those of features."""
        return self.train.workers or self.features.workers.model_copy(update={"count": 1, "cpus": None})

    def with_workers(self, count: int | None, executor: str | None) -> Self:
        """The run with this number of promotion workers and this executor; None leaves either unchanged."""
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
        """How many devices a promotion trains on, each with a share of the batch."""
        return max(1, math.ceil(self.promotion_workers.gpus))

    @property
    def evaluated_splits(self) -> tuple[str, ...]:
        """The splits that promotions and baselines are measured on."""
        return tuple(split for split in SPLITS if split != "test" or self.train.evaluate_test)

    @model_validator(mode="after")
    def _known_augmentation(self) -> TrainRun:
        """Fails here, not after the hours of the stages before."""
        value = self.train.finetune.augmentation
        if value is not None:
            resolve_policy(value, "train.finetune.augmentation", image_size(self.features))
        return self
