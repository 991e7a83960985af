"""The section `features`: the frozen backbone, its pooling, and the augmented copies to cache.

Each stage owns the model of its own section. The models form a chain (`DatasetRun`, `FeaturesRun` here, `SearchRun`, `TrainRun`,
and `reports.config.Run` for the whole file), each adding its section; a stage ignores later sections.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    field_validator,
    model_validator,
)

from features.dataset.config import DatasetRun
from features.pooling import parse_pooling, pooling_name
from features.runtime.section import Section, UserText
from features.runtime.workers.config import Workers


class AugmentationLayer(Section):
    """One Keras preprocessing layer with its arguments, e.g. {layer: RandomRotation, factor: 0.1}."""

    model_config = ConfigDict(extra="allow", frozen=True)
    layer: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The layer's keyword arguments."""
        return dict(self.model_extra or {})


class AugmentationConfig(Section):
    """A policy by name, or a list of Keras layers; and the probability that a photo is left unchanged."""

    policy: str | None = Field(None, description="a policy's name; or give layers")
    name: str | None = Field(None, min_length=1, description="a name for these layers; default: custom")
    layers: list[AugmentationLayer] | None = Field(None, description="Keras image layers, in order")
    clean_probability: float = Field(0.0, ge=0, le=1, description="probability that a photo is left unchanged")

    @model_validator(mode="after")
    def _one_of(self) -> AugmentationConfig:
        if (self.policy is None) == (self.layers is None):
            raise ValueError("must have either policy (a name) or layers (a list)")
        if self.policy is not None and self.name is not None:
            raise ValueError("name is only for layers; a policy already has a name")
        return self


def _augmentation_kind(value: Any) -> Any:
    if isinstance(value, dict):
        return AugmentationConfig.model_validate(value)
    if isinstance(value, list):
        return TypeAdapter(list[AugmentationLayer]).validate_python(value)
    if not isinstance(value, str | AugmentationConfig):
        raise ValueError("must be a policy's name, a list of Keras layers, or {policy | layers, clean_probability}")
    return value


Augmentation = Annotated[str | list[AugmentationLayer] | AugmentationConfig, BeforeValidator(_augmentation_kind)]


class CachedPolicy(AugmentationConfig):
    """A policy with its own number of cached copies."""

    copies: int | None = Field(
        None, ge=0, le=999, description="augmented copies of the training split; default: features.copies"
    )

    @classmethod
    def of(cls, policy: AugmentationConfig) -> CachedPolicy:
        """Converts a policy, keeping its `copies` if it has them."""
        return cls(**{name: getattr(policy, name) for name in type(policy).model_fields})

    @property
    def augmentation(self) -> AugmentationConfig:
        """The policy without `copies`."""
        return AugmentationConfig(**{name: getattr(self, name) for name in AugmentationConfig.model_fields})


def _cached_kind(value: Any) -> Any:
    """One policy, or a list of policies; a list of mappings that name no policy is one policy of Keras layers."""
    if isinstance(value, dict | AugmentationConfig):
        return _entry_kind(value)
    if isinstance(value, list):
        named = [isinstance(one, str | AugmentationConfig) or _names_policy(one) for one in value]
        if any(named):
            loose = [place for place, one in enumerate(value) if isinstance(one, dict) and "layer" in one]
            if loose:
                raise ValueError(
                    f"entry {loose[0]} is a Keras layer, but other entries are policies. For a policy of layers, write "
                    "{layers: [...], name: ...}"
                )
            return TypeAdapter(list[Annotated[str | CachedPolicy, BeforeValidator(_entry_kind)]]).validate_python(value)
        return TypeAdapter(list[AugmentationLayer]).validate_python(value)
    if not isinstance(value, str):
        raise ValueError(
            "must be a policy's name, a list of Keras layers, {policy | layers, clean_probability, copies}, or a list of "
            "policies"
        )
    return value


def _entry_kind(value: Any) -> Any:
    if isinstance(value, dict):
        return CachedPolicy.model_validate(value)
    if isinstance(value, AugmentationConfig):
        return CachedPolicy.of(value)
    if not isinstance(value, str):
        raise ValueError("a policy must be a name, or {policy | layers, name, clean_probability, copies}")
    return value


def _names_policy(value: Any) -> bool:
    return isinstance(value, dict) and not {"policy", "layers"}.isdisjoint(value)


CachedAugmentation = Annotated[
    str | list[AugmentationLayer] | CachedPolicy | list[str | CachedPolicy], BeforeValidator(_cached_kind)
]


def augmentation_name(value: Any) -> str:
    """The name of one policy, or `custom` for layers without a name."""
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
        None, description="only for a .keras file: a keras.applications family (resnet_v2, …), or {scale, offset}"
    )
    weights: UserText = Field("imagenet", description="imagenet | random | the path of a .weights.h5 file")
    image_size: ImageSize | None = Field(None, description="[height, width] in pixels; default: the backbone's own")
    cut: str | tuple[str, ...] | None = Field(
        None,
        description="a layer of the backbone whose map to use instead of the last; for a list, the pooled maps are joined",
    )
    pooling: Pooling | None = Field(
        None,
        description="avg | max | gem:3 | covariance:64, joined by +, or none for the unpooled map; default: "
        "avg+max+covariance:64, or avg for photos so small that the last map has fewer than 16 positions",
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="dtype of the stored features")
    compute: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="auto: bfloat16 if the CPU or GPU supports it, except for depthwise networks, which lose accuracy",
    )
    copies: int = Field(4, ge=0, le=999, description="augmented copies of the training split; 0 = clean only")
    augmentation: CachedAugmentation = Field(
        "mild",
        description="a policy's name, a list of Keras layers, or {policy | layers, clean_probability}; or a list of policies to "
        "cache, each a name or {policy | layers, name, clean_probability, copies}",
    )
    seed: int = Field(0, ge=0)
    batch_size: int = Field(32, ge=1)
    images_per_shard: int = Field(128, ge=1, description="photos per shard, and per task of a worker")
    workers: Workers = Workers()
    store: UserText | None = Field(
        None, description="also keep the cache there, e.g. s3://bucket/prefix, gs://…, file:///…; default: only local"
    )

    @model_validator(mode="before")
    @classmethod
    def _no_other_policies(cls, raw: Any) -> Any:
        """Rejects `other_policies`, a key of earlier versions, whose default policy was flip_rotate_zoom."""
        if isinstance(raw, dict) and "other_policies" in raw:
            given = raw["other_policies"]
            others = given if isinstance(given, list) else [] if given is None else [given]
            own = raw.get("augmentation", "flip_rotate_zoom")
            own = {"layers": own} if isinstance(own, list) and own and not is_several(own) else own
            wanted = yaml.safe_dump([own, *others], default_flow_style=True, width=10_000, sort_keys=False).strip()
            advice = f"Write augmentation: {wanted}" if others else "Remove it; augmentation lists all policies"
            raise ValueError(f"other_policies was removed. {advice}")
        return raw

    @field_validator("augmentation")
    @classmethod
    def _told_apart(cls, value: Any) -> Any:
        names = [augmentation_name(one) for one in (value if is_several(value) else [value])]
        if "clean" in names:
            raise ValueError("'clean' is reserved for photos without augmentation. Choose another name for the policy")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(
                f"two policies are called {twice!r}, but names must be unique. Keep one of them, or write {{layers: [...], "
                "name: ...}"
            )
        return value

    @model_validator(mode="after")
    def _sizes(self) -> FeaturesConfig:
        if self.image_size is not None and min(self.image_size) < 16:
            raise ValueError(f"image_size must be at least 16 pixels on each side, but got {list(self.image_size)}")
        if isinstance(self.cut, tuple) and (len(self.cut) < 2 or len(set(self.cut)) < len(self.cut)):
            raise ValueError(f"cut: a list must have at least two layers, all different, but got {list(self.cut)}")
        if isinstance(self.cut, tuple) and self.pooling == "none":
            raise ValueError("cut: several maps cannot be joined without pooling. Choose a pooling, or a single layer")
        return self

    @property
    def cuts(self) -> tuple[str, ...]:
        """The layers of `cut`; empty if the last map is cached."""
        return (self.cut,) if isinstance(self.cut, str) else self.cut or ()


class FeaturesRun(DatasetRun):
    """The part of `headhunt.yaml` that the features stage reads."""

    features: FeaturesConfig = FeaturesConfig()
    search: Any = None
    train: Any = None
    reports: Any = None
