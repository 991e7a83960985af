"""The service checks every path in a configuration before accepting it, including fields that will be added later."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
from pydantic import BaseModel

from headhunt.service.jobs.admission import RefusedError, admit
from headhunt.service.settings import Settings
from reports.config import Run

OUTSIDE = "../outside"

TOY = {"kind": "toy_cars"}
BASES: dict[str, dict[str, Any]] = {
    "Run": {"dataset": TOY},
    "StanfordCars": {"dataset": {"kind": "stanford_cars", "root": "photos"}},
    "FolderDataset": {"dataset": {"kind": "folder", "root": "photos"}},
    "CsvDataset": {"dataset": {"kind": "csv", "file": "photos.csv"}},
    "ToyCars": {"dataset": TOY},
    "ReportsConfig": {"dataset": TOY, "reports": {}},
    "HistoryFile": {"dataset": TOY, "reports": {"histories": [{"name": "old", "files": [{"path": "a.csv"}]}]}},
}
"""Configurations that the service accepts, by the name of the model whose paths are changed in them."""

TEXTS: dict[str, Any] = {
    "features.backbone": {"backbone": f"{OUTSIDE}/a.keras", "preprocessing": "resnet_v2", "image_size": 32},
    "features.weights": {"weights": OUTSIDE},
    "features.store": {"store": "s3://outside"},
    "features.workers.address": {"workers": {"address": "auto"}},
    "search.workers.address": {"workers": {"address": "auto"}},
    "search.hypermodel": {"hypermodel": "outside:build"},
    "search.storage": {"storage": "sqlite:///outside.db"},
    "train.workers.address": {"workers": {"address": "auto"}},
    "reports.histories.files": {"histories": [{"name": "old", "files": [OUTSIDE]}]},
}
"""Text fields that name a file, a server or a program, with a section that names a wrong one."""

WORDS = {
    "AugmentationConfig": {"name", "policy"},
    "AugmentationLayer": {"layer"},
    "CachedPolicy": {"name", "policy"},
    "ColumnSplit": {"column"},
    "FeaturesConfig": {"augmentation", "cut", "pooling", "preprocessing"},
    "FidelityConfig": {"policies"},
    "FinetuneConfig": {"augmentation"},
    "HistoryConfig": {"name"},
    "PhaseConfig": {"unfreeze"},
    "Run": {"name"},
    "SearchConfig": {"hypermodel_values"},
    "SearchSpace": {"batch_size", "features", "head", "optimizer", "schedule", "views"},
    "Views": {"policy"},
}
"""Other text fields, and values of any kind, by model: names that Headhunt, Keras, a table or the configuration itself knows."""


class Leaf(NamedTuple):
    """A place in a configuration for a value of `kind`: in the model `owner`, in a list or by itself."""

    key: str
    owner: str
    kind: Any
    in_list: bool


def leaves(model: type[BaseModel], key: str = "") -> Iterator[Leaf]:
    """Every such place below a model."""
    for name, field in model.model_fields.items():
        yield from _leaves(field.annotation, f"{key}{name}", model.__name__, False)


def _leaves(annotation: Any, key: str, owner: str, in_list: bool) -> Iterator[Leaf]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from leaves(annotation, f"{key}.")
    elif get_args(annotation) and get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from _leaves(part, key, owner, in_list or get_origin(annotation) in (list, tuple, set, frozenset))
    else:
        yield Leaf(key, owner, annotation, in_list)


LEAVES = sorted(set(leaves(Run)), key=str)
PATHS = [leaf for leaf in LEAVES if isinstance(leaf.kind, type) and issubclass(leaf.kind, Path)]


def changed(value: Any, key: list[str], new: Any) -> Any:
    """A copy with another value at a key path, in the first entry of any list on the way."""
    if not key:
        return new
    if isinstance(value, list):
        return [changed(value[0], key, new), *value[1:]]
    return {**value, key[0]: changed(value.get(key[0], {}), key[1:], new)}


def refused(raw: Mapping[str, Any], root: Path) -> set[str]:
    """The key paths that the service rejects because of their targets, without list positions."""
    try:
        admit({"name": "paths", **raw}, Settings(root=root))
    except RefusedError as error:
        reasons = "work directory|Remove this key|the operator allowed none"
        found = [fault.partition(": ") for fault in error.faults]
        return {re.sub(r"\.\d+", "", key) for key, _, said in found if re.search(reasons, said)}
    return set()


def test_paths_were_found_at_every_depth() -> None:
    assert {leaf.key for leaf in PATHS} >= {"workdir", "dataset.root", "reports.histories.files.path"}
    assert {leaf.in_list for leaf in PATHS if leaf.key == "dataset.annotations"} == {True, False}


@pytest.mark.parametrize("leaf", PATHS, ids=lambda leaf: f"{leaf.owner}.{leaf.key}{'[]' * leaf.in_list}")
def test_every_path_of_a_configuration_is_looked_at(leaf: Leaf, tmp_path: Path) -> None:
    assert leaf.owner in BASES, f"{leaf.key} is new: write a configuration with a {leaf.owner} into BASES"
    base = BASES[leaf.owner]
    assert refused(base, tmp_path) == set()
    raw = changed(base, leaf.key.split("."), [OUTSIDE] if leaf.in_list else OUTSIDE)
    found = refused(raw, tmp_path)
    assert any(leaf.key == key or leaf.key.startswith(f"{key}.") for key in found), found


@pytest.mark.parametrize("key", TEXTS)
def test_texts_that_name_a_file_or_a_program_are_looked_at(key: str, tmp_path: Path) -> None:
    section = key.partition(".")[0]
    assert key in refused({"dataset": TOY, section: TEXTS[key]}, tmp_path)


def test_every_text_of_a_configuration_is_known_to_lead_somewhere_or_nowhere() -> None:
    texts = [leaf for leaf in LEAVES if leaf.kind in (str, Any)]
    assert TEXTS.keys() <= {leaf.key for leaf in texts}
    nowhere: dict[str, set[str]] = {}
    for leaf in texts:
        if leaf.key not in TEXTS:
            nowhere.setdefault(leaf.owner, set()).add(leaf.key.rpartition(".")[2])
    assert nowhere == WORDS, "write a new one into TEXTS, where it names a file or a program, or else into WORDS"
