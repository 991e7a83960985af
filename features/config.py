"""The sections of the configuration that the features stage owns, and the base of all sections.

Each stage owns the model of its own section. The models form a chain (`FeaturesRun` here, `SearchRun`, `TrainRun`, and
`reports.config.Run` for the whole file), each adding its section; a stage leaves the later sections unread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    field_validator,
    model_validator,
)

from features.pooling import parse_pooling, pooling_name

UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path of the configuration; `~` is the user's home."""

UserText = Annotated[str, AfterValidator(lambda text: str(Path(text).expanduser()) if text.startswith("~") else text)]
"""A name, an address or a path."""


class Section(BaseModel):
    """Base of every section: frozen, comparable, and strict about keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


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


class Workers(Section):
    """How many workers a stage uses, and what each is given."""

    executor: Literal["auto", "ray", "local"] = Field(
        "auto",
        description="auto: processes of this machine, or Ray where a cluster is named by address or RAY_ADDRESS; ray: Ray, here "
        "or on a cluster; local: in this process",
    )
    count: int = Field(1, ge=1)
    cpus: float | None = Field(
        None, gt=0, description="cores for each worker; default: an equal share of this machine's"
    )
    gpus: float = Field(0, ge=0, description="GPUs for each worker; fractions are allowed")
    address: str | None = Field(
        None,
        description="a Ray cluster to join, e.g. `auto` or ray://head:10001; default: RAY_ADDRESS, or else this machine alone",
    )


class AugmentationLayer(Section):
    """One Keras preprocessing layer with its arguments, e.g. {layer: RandomRotation, factor: 0.1}."""

    model_config = ConfigDict(extra="allow", frozen=True)
    layer: str

    @property
    def arguments(self) -> dict[str, Any]:
        """What the layer is made with."""
        return dict(self.model_extra or {})


class AugmentationConfig(Section):
    """A policy by name, or Keras layers of your own; and how often a photo is left as it is."""

    policy: str | None = Field(None, description="a policy's name; or layers")
    name: str | None = Field(None, min_length=1, description="what these layers are called; default: custom")
    layers: list[AugmentationLayer] | None = Field(None, description="Keras image layers, in order")
    clean_probability: float = Field(0.0, ge=0, le=1, description="how often a photo is left as it is")

    @model_validator(mode="after")
    def _one_of(self) -> AugmentationConfig:
        if (self.policy is None) == (self.layers is None):
            raise ValueError("it takes either policy (a name) or layers (a list)")
        if self.policy is not None and self.name is not None:
            raise ValueError("name goes with layers; a policy has its name already")
        return self


def _augmentation_kind(value: Any) -> Any:
    if isinstance(value, dict):
        return AugmentationConfig.model_validate(value)
    if isinstance(value, list):
        return TypeAdapter(list[AugmentationLayer]).validate_python(value)
    if not isinstance(value, str | AugmentationConfig):
        raise ValueError("it takes a policy's name, a list of Keras layers, or {policy | layers, clean_probability}")
    return value


Augmentation = Annotated[str | list[AugmentationLayer] | AugmentationConfig, BeforeValidator(_augmentation_kind)]


class CachedPolicy(AugmentationConfig):
    """A policy with its own number of cached copies."""

    copies: int | None = Field(
        None, ge=0, le=999, description="augmented copies of the training split; default: features.copies"
    )

    @classmethod
    def of(cls, policy: AugmentationConfig) -> CachedPolicy:
        """A policy with the copies that it names, or none."""
        return cls(**{name: getattr(policy, name) for name in type(policy).model_fields})

    @property
    def augmentation(self) -> AugmentationConfig:
        """The policy without its copies."""
        return AugmentationConfig(**{name: getattr(self, name) for name in AugmentationConfig.model_fields})


def _cached_kind(value: Any) -> Any:
    """One policy, or a list of policies: a list of mappings without a name in it is one policy of Keras layers."""
    if isinstance(value, dict | AugmentationConfig):
        return _entry_kind(value)
    if isinstance(value, list):
        named = [isinstance(one, str | AugmentationConfig) or _names_policy(one) for one in value]
        if any(named):
            loose = [place for place, one in enumerate(value) if isinstance(one, dict) and "layer" in one]
            if loose:
                raise ValueError(
                    f"entry {loose[0]} is a Keras layer, but the others are policies. Write {{layers: [...], name: ...}} for a "
                    "policy of layers"
                )
            return TypeAdapter(list[Annotated[str | CachedPolicy, BeforeValidator(_entry_kind)]]).validate_python(value)
        return TypeAdapter(list[AugmentationLayer]).validate_python(value)
    if not isinstance(value, str):
        raise ValueError(
            "it takes a policy's name, a list of Keras layers, {policy | layers, clean_probability, copies}, or a list of "
            "policies"
        )
    return value


def _entry_kind(value: Any) -> Any:
    if isinstance(value, dict):
        return CachedPolicy.model_validate(value)
    if isinstance(value, AugmentationConfig):
        return CachedPolicy.of(value)
    if not isinstance(value, str):
        raise ValueError("a policy is a name, or {policy | layers, name, clean_probability, copies}")
    return value


def _names_policy(value: Any) -> bool:
    return isinstance(value, dict) and not {"policy", "layers"}.isdisjoint(value)


CachedAugmentation = Annotated[
    str | list[AugmentationLayer] | CachedPolicy | list[str | CachedPolicy], BeforeValidator(_cached_kind)
]


def augmentation_name(value: Any) -> str:
    """What one policy is called: its name, or `custom` for layers without one."""
    if isinstance(value, AugmentationConfig):
        return value.policy or value.name or "custom"
    return value if isinstance(value, str) else "custom"


def is_several(value: Any) -> bool:
    """Whether a value of features.augmentation is a list of policies, not one policy."""
    return isinstance(value, list) and any(isinstance(one, str | AugmentationConfig) for one in value)


def _image_size(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


ImageSize = Annotated[tuple[int, int], BeforeValidator(_image_size)]


Pooling = Annotated[str, AfterValidator(lambda text: pooling_name(parse_pooling(text)))]


class FeaturesConfig(Section):
    """The frozen backbone and the copies to cache."""

    backbone: UserText = Field("resnet101v2", description="a name in BACKBONES, or the path of a .keras file")
    preprocessing: str | dict[str, Any] | None = Field(
        None, description="only with a path: a keras.applications family (resnet_v2, …), or {scale, offset}"
    )
    weights: UserText = Field("imagenet", description="imagenet | random | the path of a .weights.h5 file")
    image_size: ImageSize | None = Field(None, description="[height, width] in pixels; default: the backbone's own")
    cut: str | tuple[str, ...] | None = Field(
        None,
        description="a layer of the backbone, or a list: their maps are pooled and joined, instead of the last map",
    )
    pooling: Pooling | None = Field(
        None,
        description="avg | max | gem:3 | covariance:64, joined by +, or none: the map itself; default: "
        "avg+max+covariance:64, and avg for photos so small that the last map has fewer than 16 places",
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="of the stored features")
    compute: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="auto: bfloat16 where the CPU or GPU has it and the network loses nothing by it (not depthwise ones)",
    )
    copies: int = Field(4, ge=0, le=999, description="augmented copies of the training split; 0 = clean only")
    augmentation: CachedAugmentation = Field(
        "mild",
        description="a policy's name, a list of Keras layers, {policy | layers, clean_probability}; or a list of policies, each "
        "a name or {policy | layers, name, clean_probability, copies}, that are all cached",
    )
    seed: int = Field(0, ge=0)
    batch_size: int = Field(32, ge=1)
    images_per_shard: int = Field(128, ge=1, description="also what one task computes at a time")
    workers: Workers = Workers()
    store: UserText | None = Field(
        None, description="also keep the cache there, e.g. s3://bucket/prefix, gs://…, file:///…; default: only local"
    )

    @model_validator(mode="before")
    @classmethod
    def _no_other_policies(cls, raw: Any) -> Any:
        """`other_policies` is a key of earlier versions, whose default policy was flip_rotate_zoom."""
        if isinstance(raw, dict) and "other_policies" in raw:
            given = raw["other_policies"]
            others = given if isinstance(given, list) else [] if given is None else [given]
            own = raw.get("augmentation", "flip_rotate_zoom")
            own = {"layers": own} if isinstance(own, list) and own and not is_several(own) else own
            wanted = yaml.safe_dump([own, *others], default_flow_style=True, width=10_000, sort_keys=False).strip()
            advice = f"Write augmentation: {wanted}" if others else "Delete it: augmentation lists all policies"
            raise ValueError(f"other_policies is no longer a key. {advice}")
        return raw

    @field_validator("augmentation")
    @classmethod
    def _told_apart(cls, value: Any) -> Any:
        names = [augmentation_name(one) for one in (value if is_several(value) else [value])]
        if "clean" in names:
            raise ValueError(
                "no policy can be called 'clean', which photos without augmentation are. Choose another name"
            )
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"two policies are called {twice!r}. Each needs a name of its own: keep one of them, or write {{layers: [...], "
                "name: ...}"
            )
        return value

    @model_validator(mode="after")
    def _sizes(self) -> FeaturesConfig:
        if self.image_size is not None and min(self.image_size) < 16:
            raise ValueError(f"image_size must be at least 16 pixels on each side, but got {list(self.image_size)}")
        if isinstance(self.cut, tuple) and (len(self.cut) < 2 or len(set(self.cut)) < len(self.cut)):
            raise ValueError(f"cut: a list needs two different layers or more, but got {list(self.cut)}")
        if isinstance(self.cut, tuple) and self.pooling == "none":
            raise ValueError("cut: several maps cannot be joined unpooled. Choose a pooling, or a single layer")
        return self

    @property
    def cuts(self) -> tuple[str, ...]:
        """The layers of `cut`; none where the last map is cached."""
        return (self.cut,) if isinstance(self.cut, str) else self.cut or ()


class FeaturesRun(Section):
    """The part of `headhunt.yaml` that the features stage reads."""

    name: str = Field("headhunt", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run and of its study")
    workdir: UserPath = Field(Path("runs/headhunt"), description="the run's folder")
    dataset: Dataset
    features: FeaturesConfig = FeaturesConfig()
    search: Any = None
    train: Any = None
    reports: Any = None
