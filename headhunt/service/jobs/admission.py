"""Which configurations the service accepts: valid ones that stay in the work directory and run only code the operator allows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel

from features.backbones.table import is_file
from features.run_file import validate
from features.runtime.configfile import parse_yaml, shortened
from features.runtime.errors import UsageError
from features.runtime.log import without_password
from headhunt.service.settings import Settings
from reports.config import HistoryConfig, Run

LONGEST_NAME = 100
"""Maximum length of a search's name, which is also the name of a folder and a study and part of Ray's job ids."""

RESERVED = ("-promotions", "-fidelity")
"""Suffixes of a search's other studies in the same storage."""

SERVICE_KEYS = frozenset(
    {
        "workdir",
        "search.storage",
        "dataset.within",
        *(f"{section}.workers.address" for section in ("features", "search", "train")),
    }
)
"""Keys that the service sets itself."""

DEEPEST = 32
"""Maximum nesting depth of a configuration."""


class RefusedError(UsageError):
    """The service rejects a configuration; `faults` are its faults, each with its key path."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = [shortened(fault) for fault in faults]
        super().__init__("\n  ".join(["the configuration is not accepted:", *self.faults]))


class Admitted(NamedTuple):
    """A configuration as stored in the search's folder, and its model."""

    text: str
    run: Run


def parse(body: bytes, is_json: bool) -> Any:
    """Parses a request's body, JSON or YAML, into plain data; RefusedError if it is invalid."""
    try:
        text = body.decode("utf-8")
        if is_json:
            return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_keys_once)
        _check_events(text)
        return parse_yaml(text, "the configuration")
    except UnicodeDecodeError as error:
        raise RefusedError([f"the body is not UTF-8: {error}."]) from None
    except json.JSONDecodeError as error:
        raise RefusedError([f"line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}."]) from None
    except UsageError as error:
        raise RefusedError([str(error)]) from None
    except RecursionError:
        raise RefusedError([f"the configuration is nested more than {DEEPEST} levels deep."]) from None
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # e.g. an integer of thousands of digits, an impossible date, a tag that does not fit its value
        raise RefusedError([f"a value cannot be read: {error}."]) from None


def admit(raw: Any, settings: Settings) -> Admitted:
    """Checks a submitted configuration and adds the keys that the service sets; RefusedError lists every fault."""
    if not isinstance(raw, dict):
        raise RefusedError([f"it must be a mapping with the sections {', '.join(Run.model_fields)}."])
    if _depth(raw) > DEEPEST:
        raise RefusedError([f"the configuration is nested more than {DEEPEST} levels deep."])
    faults = _service_keys(raw)
    completed = {**raw}
    if isinstance(raw.get("search", {}), dict | None):
        completed["search"] = {**(raw.get("search") or {}), "storage": settings.storage_url}
    if isinstance(raw.get("dataset"), dict):
        completed["dataset"] = {**raw["dataset"], "within": str(settings.root)}
    try:
        completed["workdir"] = str(raw.get("name", "headhunt"))
        run = validate(Run, completed, "submitted", given=raw, decided=SERVICE_KEYS)
    except UsageError as error:
        raise RefusedError([*faults, *(str(error).split("\n  ")[1:] or [str(error)])]) from None
    except (RecursionError, OverflowError, OSError, ValueError, TypeError) as error:
        raise RefusedError([*faults, f"a value cannot be used: {type(error).__name__}: {error}."]) from None
    faults += [*_name(run, settings), *_reach(run, settings)]
    if faults:
        raise RefusedError(faults)
    return Admitted(yaml.safe_dump(completed, sort_keys=False, allow_unicode=True), run)


def admit_again(run: Run, settings: Settings) -> None:
    """Checks the files, stores and code of an earlier search against today's settings; RefusedError lists every fault."""
    faults = _reach(run, settings)
    if faults:
        raise RefusedError(faults)


def contained(path: Path, root: Path) -> bool:
    """Whether a path, taken relative to `root` and with symlinks resolved, lies in `root`."""
    try:
        return Path(os.path.realpath(root / path)).is_relative_to(root)
    except (OSError, ValueError):  # a name with a NUL, or too long
        return False


def _service_keys(raw: dict[Any, Any]) -> list[str]:
    """Faults for keys that the service sets itself."""
    faults = []
    if "workdir" in raw:
        faults.append("workdir: the service keeps every search in a folder of that name. Remove this key.")
    search, dataset = raw.get("search"), raw.get("dataset")
    if isinstance(search, dict) and "storage" in search:
        faults.append("search.storage: the service keeps all studies in one storage. Remove this key.")
    if isinstance(dataset, dict) and dataset.get("within") is not None:
        faults.append("dataset.within: the service reads photos only from its work directory. Remove this key.")
    for section in ("features", "search", "train"):
        workers = raw[section].get("workers") if isinstance(raw.get(section), dict) else None
        if isinstance(workers, dict) and workers.get("address") is not None:
            faults.append(f"{section}.workers.address: the service chooses the cluster. Remove this key.")
    return faults


def _name(run: Run, settings: Settings) -> list[str]:
    if len(run.name) > LONGEST_NAME:
        return [f"name: received {len(run.name)} characters; it must be at most {LONGEST_NAME}."]
    for ending in RESERVED:
        if run.name.endswith(ending):
            return [
                f"name: received {run.name!r}; names that end in {ending} are reserved for studies of other searches."
            ]
    file = settings.storage_file  # SQLite also writes -journal, -wal and -shm files
    if file and file.parent == settings.root and run.name.lower().startswith(file.name.lower()):
        return [f"name: received {run.name!r}; names that begin with {file.name} are reserved for the storage's files."]
    return []


def _reach(run: Run, settings: Settings) -> list[str]:
    """Faults of the files, stores and code that a configuration names."""
    return [*_paths(run, settings.root), *_stores(run, settings), *_code(run, settings)]


def _paths(run: Run, root: Path) -> list[str]:
    faults: dict[str, str] = {}
    for key, given, path in _named_paths(run):
        if key in faults or ("dataset.root" in faults and key.startswith("dataset.")):
            continue  # a fault of the folder is not repeated for its contents
        if not contained(path, root):
            faults[key] = (
                f"{key}: received {str(given)!r}, which is not in the service's work directory. Give a path relative to "
                "the work directory; `..`, absolute paths and symlinks that lead out of it are not allowed."
            )
        elif _is_hidden(path, root):
            faults[key] = (
                f"{key}: received {str(given)!r}, but files and folders whose names begin with a dot are reserved for the "
                "service, e.g. for uploads in the dashboard. Choose another path."
            )
    return list(faults.values())


def _is_hidden(path: Path, root: Path) -> bool:
    """Whether a path in `root`, with symlinks resolved, has a part that begins with a dot."""
    return any(part.startswith(".") for part in Path(os.path.realpath(root / path)).relative_to(root).parts)


def _named_paths(run: Run) -> Iterator[tuple[str, Path, Path]]:
    """Every path in a configuration: its key path, the path as given, and the path relative to the work directory."""
    dataset = run.dataset
    folder = getattr(dataset, "root", None) or Path()
    yield "dataset.root", folder, folder
    for key, path in _path_values(dataset, "dataset"):
        if key not in ("dataset.root", "dataset.within"):
            yield key, path, path
            yield key, path, folder / path
    features = run.features
    if is_file(features):
        yield "features.backbone", Path(features.backbone), Path(features.backbone)
    if features.weights not in ("imagenet", "random"):
        yield "features.weights", Path(features.weights), Path(features.weights)
    yield from ((key, path, path) for key, path in _path_values(run.reports, "reports"))


def _path_values(value: Any, key: str) -> Iterator[tuple[str, Path]]:
    match value:
        case Path():
            yield key, value
        case HistoryConfig():
            yield from ((f"{key}.files", part.path) for part in value.parts)
        case BaseModel():
            for name in type(value).model_fields:
                yield from _path_values(getattr(value, name), f"{key}.{name}")
        case list() | tuple():
            for position, one in enumerate(value):
                yield from _path_values(one, f"{key}.{position}")


def _stores(run: Run, settings: Settings) -> list[str]:
    store = run.features.store
    if store is None:
        return []
    allowed = [prefix.rstrip("/") for prefix in settings.stores]
    inside = any(store == prefix or store.startswith(f"{prefix}/") for prefix in allowed)
    if inside and ".." not in store.split("/"):
        return []
    shown = f"allowed: {', '.join(allowed)} and paths below" if allowed else "the operator allowed none (--store)"
    return [f"features.store: received {without_password(store)!r}; {shown}."]


def _code(run: Run, settings: Settings) -> list[str]:
    if run.search.hypermodel is None:
        return []
    module = run.search.hypermodel.partition(":")[0]
    if module in settings.hypermodels:
        return []
    shown = (
        f"allowed modules: {', '.join(settings.hypermodels)}" if settings.hypermodels else "the operator allowed none"
    )
    return [f"search.hypermodel: received {run.search.hypermodel!r}; {shown} (`headhunt serve --hypermodel MODULE`)."]


def _check_events(text: str) -> None:
    """Rejects YAML that would be expensive to load: a few lines of aliases can expand to gigabytes, and deep nesting takes
    quadratic time."""
    depth = 0
    with suppress(yaml.YAMLError):  # the loader reports syntax errors with their place
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"line {line}: aliases (*{event.anchor}) are not allowed. Write the value out.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise UsageError(f"line {line}: the configuration is nested more than {DEEPEST} levels deep.")


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level and deepest <= DEEPEST:
        deepest += 1
        level = [
            one
            for node in level
            if isinstance(node, dict | list)
            for one in (node.values() if isinstance(node, dict) else node)
        ]
    return deepest


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON")
