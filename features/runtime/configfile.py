"""Reads the configuration file, merges it with `--set`, validates it and explains errors."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from features.runtime.errors import UsageError
from features.runtime.nearest import suggest
from features.runtime.section import Section

S = TypeVar("S", bound=Section)


def merged(file: Path, overrides: Sequence[str] = (), keys: Sequence[str] = ()) -> dict[str, Any]:
    """The contents of `file` with the `key.path=value` overrides applied, not yet validated.

    Raises UsageError when the file is missing, unreadable or not a mapping; `keys` are the allowed ones, for the message.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"there is no configuration file {file}. Create one with `headhunt init`, or pass one with `-c FILE`."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the configuration file {file} cannot be read: {error}.") from error
    raw = parse_yaml(text, str(file))
    if not isinstance(raw, dict):
        shown = ", ".join(keys)
        raise UsageError(
            f"{file} must be a mapping{f' with the keys {shown}' if keys else ''}, but is {type(raw).__name__}."
        )
    for override in overrides:
        _apply(raw, override)
    return raw


LONGEST_FAULT = 1000
"""Most characters of one error's message, since the value it quotes may be of any length."""


def validate(
    model: type[S],
    raw: dict[str, Any],
    source: str,
    given: dict[str, Any] | None = None,
    decided: Container[str] = (),
) -> S:
    """Validates a parsed configuration. Raises UsageError with one line per error.

    `given` is what the user wrote, if `raw` has been completed since: messages refer to it. `decided` are key paths that the user
    cannot set, so they are never suggested.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [
            shortened(_explain(detail, raw if given is None else given, model, decided))
            for detail in error.errors()
            if detail["type"] != "default_factory_not_called"  # follows from another error
        ]
        raise UsageError("\n  ".join([f"invalid configuration {source}:", *dict.fromkeys(lines)])) from None


class _Loader(yaml.SafeLoader):
    """SafeLoader that rejects duplicate keys and reads 1e-5 as a number, as in YAML 1.2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key if isinstance(key, str | int | float) else id(key_node))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, source: str) -> Any:
    """Parses YAML safely. Raises UsageError with line and column when it is malformed."""
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
            raise UsageError(f"--set {override}: {key!r} is {child!r}, not a mapping.")
        node = child
    node[keys[-1]] = parse_yaml(text, f"--set {override}")


def shortened(fault: str, most: int = LONGEST_FAULT) -> str:
    """The text cut to `most` characters, followed by its full length if longer."""
    return fault if len(fault) <= most else f"{fault[:most]} … (of {len(fault)} characters)"


def _explain(detail: Any, raw: dict[str, Any], model: type[BaseModel], decided: Container[str]) -> str:
    path, holder = _key_path(detail["loc"], raw)
    kind, received = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        allowed = [key for key in _allowed_keys(model, path[:-1], raw) if _dotted((*path[:-1], key)) not in decided]
        return f"{_dotted(path)}: unknown key.{suggest(str(path[-1]), allowed)}" + (
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
        return f"{_dotted(path)}: received {received!r}; allowed: {allowed_text}.{suggest(str(received), choices)}"
    if kind == "union_tag_not_found":
        return f"{_dotted(path)}: the key {detail['ctx']['discriminator']} is required."
    message = detail["msg"].removeprefix("Value error, ")
    if kind in ("tuple_type", "list_type"):
        message = f"must be a list, e.g. [{received or '…'}]"
    message = message[:1].lower() + message[1:]
    if kind != "value_error" or not isinstance(received, dict):
        return f"{_dotted(path) or 'the file'}: received {received!r}; {message.rstrip('.')}."
    inner = re.match(r"(\w+)[\w.]*: ", message)  # a section that names one of its keys
    joint = "." if path and inner and inner[1] in received else ": "
    return f"{_dotted(path) or 'the file'}{joint}{message.rstrip('.')}."


def _key_path(location: Sequence[str | int], raw: Any) -> tuple[tuple[str | int, ...], Any]:
    """The location without pydantic's union tags, which appear in no file; and the mapping that holds its last key."""
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
    """The keys of the section at `path`, found through the models' annotations; empty if they lead to no model."""
    current: type[BaseModel] | None = model
    node = raw
    for key in path:
        if isinstance(node, list) and isinstance(key, int):
            node = node[key]
            continue
        if current is None or not isinstance(node, dict):
            return []
        field = current.model_fields.get(str(key))
        node = node.get(key)
        current = _meant([one for one in _models_in(field.annotation) if _is_strict(one)] if field else [], node)
    return list(current.model_fields) if current else []


def _meant(models: Sequence[type[BaseModel]], node: Any) -> type[BaseModel] | None:
    """The model of a union that a mapping is meant for: the one of its `kind`, or the one that shares most keys."""
    keys = node if isinstance(node, dict) else {}
    tagged = [
        one for one in models if "kind" in one.model_fields and one.model_fields["kind"].default == keys.get("kind")
    ]
    return max(tagged or models, key=lambda one: len(one.model_fields.keys() & keys), default=None)


def _is_strict(model: type[BaseModel]) -> bool:
    """Whether the model rejects unknown keys."""
    return model.model_config.get("extra") != "allow"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _models_in(argument)]


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))
