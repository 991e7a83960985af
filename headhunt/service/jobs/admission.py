"""Which configurations the service takes: valid ones that stay in the work directory and run no code but the operator's."""

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
"""Characters of a search's name: it is a folder, a study and a part of Ray's job numbers."""

RESERVED = ("-promotions", "-fidelity")
"""How the names of a search's other studies end, in the same storage."""

DECIDED = frozenset(
    {
        "workdir",
        "search.storage",
        "dataset.within",
        *(f"{section}.workers.address" for section in ("features", "search", "train")),
    }
)
"""What the service decides itself."""

DEEPEST = 32
"""How deep a configuration may be nested."""


class RefusedError(UsageError):
    """A configuration that the service does not take; `faults` are its faults, one by one, each with its key path."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = [shortened(fault) for fault in faults]
        super().__init__("\n  ".join(["the configuration is not taken:", *self.faults]))


class Admitted(NamedTuple):
    """A configuration as it is kept in the search's folder, and its model."""

    text: str
    run: Run


def parse(body: bytes, is_json: bool) -> Any:
    """A request's body as plain data; RefusedError when it is neither."""
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
        # an integer of thousands of digits, a date that is none, a tag of a value that is not of its kind
        raise RefusedError([f"a value cannot be read: {error}."]) from None


def admit(raw: Any, settings: Settings) -> Admitted:
    """Checks a submitted configuration and completes it with what the service decides; RefusedError names every fault."""
    if not isinstance(raw, dict):
        raise RefusedError([f"it must be a mapping with the sections {', '.join(Run.model_fields)}."])
    if _depth(raw) > DEEPEST:
        raise RefusedError([f"the configuration is nested more than {DEEPEST} levels deep."])
    faults = _chosen_here(raw)
    completed = {**raw}
    if isinstance(raw.get("search", {}), dict | None):
        completed["search"] = {**(raw.get("search") or {}), "storage": settings.storage_url}
    if isinstance(raw.get("dataset"), dict):
        completed["dataset"] = {**raw["dataset"], "within": str(settings.root)}
    try:
        completed["workdir"] = str(raw.get("name", "headhunt"))
        run = validate(Run, completed, "submitted", given=raw, decided=DECIDED)
    except UsageError as error:
        raise RefusedError([*faults, *(str(error).split("\n  ")[1:] or [str(error)])]) from None
    except (RecursionError, OverflowError, OSError, ValueError, TypeError) as error:
        raise RefusedError([*faults, f"a value cannot be used: {type(error).__name__}: {error}."]) from None
    faults += [*_name(run, settings), *_reach(run, settings)]
    if faults:
        raise RefusedError(faults)
    return Admitted(yaml.safe_dump(completed, sort_keys=False, allow_unicode=True), run)


def admit_again(run: Run, settings: Settings) -> None:
    """Checks what a search that was admitted before reaches, by what is allowed today; RefusedError names every fault."""
    faults = _reach(run, settings)
    if faults:
        raise RefusedError(faults)


def contained(path: Path, root: Path) -> bool:
    """Whether a path, from `root` on and with its links followed, is in `root`."""
    try:
        return Path(os.path.realpath(root / path)).is_relative_to(root)
    except (OSError, ValueError):  # a name with a NUL, or too long
        return False


def _chosen_here(raw: dict[Any, Any]) -> list[str]:
    """What the service decides, and a configuration therefore leaves out."""
    faults = []
    if "workdir" in raw:
        faults.append("workdir: the service keeps every search in a folder of its name. Leave it out.")
    search, dataset = raw.get("search"), raw.get("dataset")
    if isinstance(search, dict) and "storage" in search:
        faults.append("search.storage: the service keeps all studies in one storage. Leave it out.")
    if isinstance(dataset, dict) and dataset.get("within") is not None:
        faults.append("dataset.within: the service takes photos of its own work directory. Leave it out.")
    for section in ("features", "search", "train"):
        workers = raw[section].get("workers") if isinstance(raw.get(section), dict) else None
        if isinstance(workers, dict) and workers.get("address") is not None:
            faults.append(f"{section}.workers.address: the service chooses the cluster. Leave it out.")
    return faults


def _name(run: Run, settings: Settings) -> list[str]:
    if len(run.name) > LONGEST_NAME:
        return [f"name: received {len(run.name)} characters; allowed: {LONGEST_NAME}."]
    for ending in RESERVED:
        if run.name.endswith(ending):
            return [f"name: received {run.name!r}, but a name that ends in {ending} is that of another search's study."]
    file = settings.storage_file  # SQLite writes beside it, too: -journal, -wal, -shm
    if file and file.parent == settings.root and run.name.lower().startswith(file.name.lower()):
        return [f"name: received {run.name!r}, but names that begin with {file.name} are for the storage's files."]
    return []


def _reach(run: Run, settings: Settings) -> list[str]:
    """What is wrong with the files, stores and programs that a configuration names."""
    return [*_paths(run, settings.root), *_stores(run, settings), *_code(run, settings)]


def _paths(run: Run, root: Path) -> list[str]:
    faults: dict[str, str] = {}
    for key, given, path in _named_paths(run):
        if key in faults or ("dataset.root" in faults and key.startswith("dataset.")):
            continue  # what is said of a folder is not said of all that is in it
        if not contained(path, root):
            faults[key] = (
                f"{key}: received {str(given)!r}, which is not in the service's work directory. Name a file or folder in it, "
                "relative to it; `..`, absolute paths and links that lead out of it are not taken."
            )
        elif _is_hidden(path, root):
            faults[key] = (
                f"{key}: received {str(given)!r}, but files and folders whose names begin with a dot are the service's own, and "
                "hold what anybody added in the dashboard. Name another one."
            )
    return list(faults.values())


def _is_hidden(path: Path, root: Path) -> bool:
    """Whether a path in `root`, its links followed, has a part that begins with a dot."""
    return any(part.startswith(".") for part in Path(os.path.realpath(root / path)).relative_to(root).parts)


def _named_paths(run: Run) -> Iterator[tuple[str, Path, Path]]:
    """Every path that a configuration names: its key path, as it is given, and from the work directory on."""
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
    shown = f"allowed: {', '.join(allowed)} and what is below" if allowed else "the operator allowed none (--store)"
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
    """Refuses what would take long to load before it is loaded: a few lines of aliases can stand for gigabytes, and each of a
    thousand nested brackets is compared with all around it."""
    depth = 0
    with suppress(yaml.YAMLError):  # who loads it says where it is not well-formed
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(f"line {line}: aliases (*{event.anchor}) are not taken. Write the value out.")
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
    raise ValueError(f"{name} is no JSON")
