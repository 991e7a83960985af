"""The configuration file: how it is read, merged with `--set`, checked and explained.

Each stage owns the model of its own section. The models form a chain (`FeaturesRun` here, `SearchRun`, `TrainRun`, and
`reports.config.Run` for the whole file), each adding its section; a stage leaves the later sections unread.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from features.errors import UsageError


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
    """The data set's own split, from the column (or .mat field) of this name; `val` is drawn from its training part."""

    column: str = Field(
        "test", min_length=1, description="`test` for Stanford Cars; for csv a column of train|val|test"
    )
    val: float = Field(
        0.20, gt=0, lt=1, description="share of the training part kept for validation where the column names none"
    )
    seed: int = Field(42, ge=0)


def _split_kind(value: Any) -> Any:
    if isinstance(value, dict):
        return ColumnSplit.model_validate(value) if "column" in value else FractionSplit.model_validate(value)
    return value


Split = Annotated[FractionSplit | ColumnSplit, BeforeValidator(_split_kind)]


class DatasetSection(Section):
    """What every kind of data set has."""

    split: Split = FractionSplit()
    on_missing: Literal["error", "skip"] = Field(
        "error", description="what a missing or unreadable photo is: a fault or a gap"
    )
    max_pixels: int = Field(100_000_000, gt=0, description="larger photos are refused, as width × height")


class StanfordCars(DatasetSection):
    """The Stanford Cars devkit: `cars_annos.mat`, or the original train and test files with `cars_meta.mat`."""

    kind: Literal["stanford_cars"] = "stanford_cars"
    root: Path = Field(description="the folder that photo paths start from")
    annotations: Path | list[Path] = Field(
        Path("cars_annos.mat"), description="the combined .mat, or a list of the devkit's files; relative to root"
    )
    meta: Path = Field(
        Path("cars_meta.mat"), description="class names, for the devkit's original files; relative to root"
    )
    crop_to_bbox: bool = Field(False, description="cut each photo to its bounding box")


class FolderDataset(DatasetSection):
    """One sub-folder a class, in numeric-aware order; with `split: {column: folder}`, `root/train/<class>` etc."""

    kind: Literal["folder"] = "folder"
    root: Path


class CsvDataset(DatasetSection):
    """A CSV table with the columns path and label or class_name, optionally split and x1, y1, x2, y2."""

    kind: Literal["csv"] = "csv"
    file: Path
    root: Path | None = Field(None, description="the folder that paths start from; default: the folder of the table")
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

    executor: Literal["ray", "local"] = Field(
        "ray", description="ray: worker processes, here or on a cluster; local: in this process"
    )
    count: int = Field(1, ge=1)
    cpus: float | None = Field(
        None, gt=0, description="cores for each worker; default: an equal share of this machine's"
    )
    gpus: float = Field(0, ge=0, description="GPUs for each worker; fractions are allowed")
    address: str | None = Field(
        None, description="a Ray cluster to join, e.g. `auto` or ray://head:10001; default: start one here"
    )


class AugmentationLayer(Section):
    """One Keras preprocessing layer with its arguments, e.g. {layer: RandomRotation, factor: 0.1}."""

    model_config = ConfigDict(extra="allow", frozen=True)
    layer: str


def _image_size(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


ImageSize = Annotated[tuple[int, int], BeforeValidator(_image_size)]


class FeaturesConfig(Section):
    """The frozen backbone and the copies to cache."""

    backbone: str = Field("resnet101v2", description="a name in BACKBONES, or the path of a .keras file")
    preprocessing: str | dict[str, Any] | None = Field(
        None, description="only with a path: a keras.applications family (resnet_v2, …), or {scale, offset}"
    )
    weights: str = Field("imagenet", description="imagenet | random | the path of a .weights.h5 file")
    image_size: ImageSize | None = Field(None, description="[height, width] in pixels; default: the backbone's own")
    pooling: Literal["avg", "max", "avg+max", "none"] = "avg"
    dtype: Literal["float16", "float32"] = Field("float16", description="of the stored features")
    compute: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="auto: bfloat16 where the CPU or GPU has it"
    )
    copies: int = Field(8, ge=0, le=999, description="augmented copies of the training split; 0 = clean only")
    augmentation: str | list[AugmentationLayer] = Field(
        "flip_rotate_zoom", description="a policy's name, or a list of Keras layers"
    )
    seed: int = Field(0, ge=0)
    batch_size: int = Field(32, ge=1)
    images_per_shard: int = Field(128, ge=1, description="also what one task computes at a time")
    workers: Workers = Workers()

    @model_validator(mode="after")
    def _sizes(self) -> FeaturesConfig:
        if self.image_size is not None and min(self.image_size) < 16:
            raise ValueError(f"image_size must be at least 16 pixels on each side, but got {list(self.image_size)}")
        return self


class FeaturesRun(Section):
    """The part of `headhunt.yaml` that the features stage reads."""

    name: str = Field("headhunt", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="of the run and of its study")
    workdir: Path = Field(Path("runs/headhunt"), description="the run's folder")
    dataset: Dataset
    features: FeaturesConfig = FeaturesConfig()
    search: Any = None
    train: Any = None
    reports: Any = None


R = TypeVar("R", bound=FeaturesRun)


def load(model: type[R], file: Path, overrides: Sequence[str] = ()) -> R:
    """Reads `file`, applies `key.path=value` overrides and validates it as `model`.

    Raises UsageError naming every wrong key path, what was received and what is allowed.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"there is no configuration file {file}. Write one with `headhunt init`, or name one with `-c FILE`."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration file {file} cannot be read: {error}.") from error
    raw = parse_yaml(text, str(file))
    if not isinstance(raw, dict):
        raise UsageError(
            f"{file} must hold a mapping with the keys {', '.join(model.model_fields)}, but holds {type(raw).__name__}."
        )
    for override in overrides:
        _apply(raw, override)
    return validate(model, raw, str(file))


def validate(model: type[R], raw: dict[str, Any], source: str) -> R:
    """Validates a parsed configuration; UsageError with one line for each fault."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(detail, raw, model) for detail in error.errors()]
        raise UsageError("\n  ".join([f"the configuration {source} is not valid:", *dict.fromkeys(lines)])) from None


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice and reads 1e-5 as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, str | int | float) else id(key_node))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, source: str) -> Any:
    """Parses YAML safely; UsageError with line and column when it is not well-formed."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"{source}{place}: not valid YAML: {error.problem}.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{source}: not valid YAML: {error}.") from None


def _apply(raw: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UsageError(f"--set takes key.path=value, e.g. `--set search.trials=50`, but got {override!r}.")
    node = raw
    for key in keys[:-1]:
        child = node.setdefault(key, {})
        if child is None:
            child = node[key] = {}
        if not isinstance(child, dict):
            raise UsageError(f"--set {override}: {key!r} holds {child!r}, not a mapping.")
        node = child
    node[keys[-1]] = parse_yaml(text, f"--set {override}")


def _explain(detail: Any, raw: dict[str, Any], model: type[BaseModel]) -> str:
    path, holder = _key_path(detail["loc"], raw)
    kind, received = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        allowed = _allowed_keys(model, path[:-1], raw)
        return f"{_dotted(path)}: unknown key.{_suggest(str(path[-1]), allowed)}" + (
            f" Allowed: {', '.join(allowed)}." if allowed else ""
        )
    if kind == "missing":
        return f"{_dotted(path)}: this key is required." + (
            f" Found there: {', '.join(map(str, holder))}." if isinstance(holder, dict) and holder else ""
        )
    if kind in ("literal_error", "union_tag_invalid"):
        context = detail.get("ctx", {})
        allowed_text = context.get("expected") or context.get("expected_tags", "")
        received = context.get("tag", received)
        if kind == "union_tag_invalid":
            path = (*path, str(context.get("discriminator", "kind")).strip("'"))
        choices = re.findall(r"'([^']*)'", allowed_text)
        return f"{_dotted(path)}: received {received!r}; allowed: {allowed_text}.{_suggest(str(received), choices)}"
    if kind == "union_tag_not_found":
        return f"{_dotted(path)}: the key {detail['ctx']['discriminator']} is required."
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = "" if kind == "value_error" and isinstance(received, dict) else f"received {received!r}; "
    return f"{_dotted(path) or 'the file'}: {shown}{message.rstrip('.')}."


def _key_path(location: Sequence[str | int], raw: Any) -> tuple[tuple[str | int, ...], Any]:
    """The location without pydantic's union tags, which stand in no file; and the mapping that holds its last key."""
    path: list[str | int] = []
    node: Any = raw
    for position, element in enumerate(location):
        last = position == len(location) - 1
        known = (isinstance(node, dict) and element in node) or (
            isinstance(node, list) and isinstance(element, int) and element < len(node)
        )
        if known:
            path.append(element)
            if not last:
                children: Any = node
                node = children[element]
        elif last and (isinstance(node, dict) or not path):
            path.append(element)
    return tuple(path), node


def _allowed_keys(model: type[BaseModel], path: Sequence[str | int], raw: Any) -> list[str]:
    """The keys of the section at `path`, following the models' annotations; empty where a union leaves it open."""
    current: type[BaseModel] | None = model
    node = raw
    for key in path:
        if current is None or not isinstance(node, dict):
            return []
        field = current.model_fields.get(str(key))
        node = node.get(key)
        candidates = _models_in(field.annotation) if field else []
        if len(candidates) > 1 and isinstance(node, dict):
            tagged = [
                m for m in candidates if "kind" in m.model_fields and m.model_fields["kind"].default == node.get("kind")
            ]
            candidates = tagged or ([ColumnSplit] if "column" in node and ColumnSplit in candidates else candidates)
        current = candidates[0] if len(candidates) == 1 or FractionSplit in candidates else None
    return list(current.model_fields) if current else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _models_in(argument)]


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))


def _suggest(received: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(received, allowed, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
