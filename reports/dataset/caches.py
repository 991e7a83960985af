"""The feature caches of a run: their contents, and how fast they were computed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from features.audit.view_accuracies import view_accuracies
from features.augmentation.policies import of_policy, policy_sections
from features.building.info import cache_facts
from features.cache.feature_cache import FeatureCache, cache_for
from features.cache.keys import changed_parts, key_parts, sound_manifests
from features.cache.manifest import Manifest
from features.dataset.index import load_index
from features.runtime.errors import CacheError
from reports.config import Run
from reports.section import LeftOutError, PageSection, Table
from reports.style import share
from search.searched_views import resolved_space

CUT = {"cut", "pooling", "projection", "augmentation"}
"""The parts of a key in which a cache of activations for fine-tuning may differ from the search's cache."""


class CacheRow(NamedTuple):
    """The purpose of a cache, its number of records, and its facts as in `features info`."""

    role: str
    records: int
    facts: dict[str, Any]


def collect(run: Run) -> list[CacheRow]:
    """Every complete cache in the run's folder: the configuration's own, its other policies, activations, and then the rest.

    Raises LeftOutError if there is none, UsageError if there is no index.
    """
    index = load_index(run)
    wanted = {name: key_parts(of_policy(run, name), index) for name in policy_sections(run.features)}
    views = resolved_space(run).views or {}
    drawn = values if isinstance(values := views.get("policy"), list) else [values]
    rows = []
    for folder, manifest in sound_manifests(run):
        records = sum(entry.records for entry in manifest.shards)
        rows.append(
            CacheRow(_role(wanted, manifest, drawn), records, cache_facts(run, index, FeatureCache(folder, manifest)))
        )
    if not rows:
        raise LeftOutError("No feature cache is complete: run `headhunt features cache`.")
    return sorted(rows, key=lambda row: list(ROLES).index(row.role))


ROLES = {
    "the search": "the features that the search trains heads on",
    "the search's other views": "the same photos with views of another policy that trials can draw",
    "another policy": "the same photos with views of another policy in features.augmentation",
    "fine-tuning": "activations of the layers that stay frozen in fine-tuning",
    "another configuration": "the cache of an earlier configuration of this run, no longer used",
}
"""The purposes of caches, in the order of the table."""


def _role(wanted: dict[str, dict[str, Any]], manifest: Manifest, drawn: Sequence[str | None]) -> str:
    own, *others = (set(changed_parts(parts, manifest.key_parts)) for parts in wanted.values())
    if not own:
        return "the search"
    if set() in others:
        return "the search's other views" if manifest.policy in drawn else "another policy"
    if manifest.key_parts["cut"] is not None and "cut" in own <= CUT:
        return "fine-tuning"
    return "another configuration"


def section(run: Run) -> PageSection:
    """A row for each cache, and the key parts of the configuration's own cache."""
    caches = collect(run)
    rows = []
    for role, records, facts in caches:
        built = facts["last_build"]
        rows.append(
            [
                facts["key"][:16],
                role,
                facts["policy"],
                str(facts["copies"]),
                " × ".join(map(str, facts["feature_shape"])),
                facts["dtype"],
                f"{records:,}",
                _size(facts["bytes"]),
                f"{built['seconds']:,.0f} s" if built else "unknown",
                f"{built['images_per_second']:,.1f}" if built else "unknown",
            ]
        )
    columns = ["key", "for", "policy", "copies", "features", "dtype", "records", "size", "last build", "images/s"]
    roles = dict.fromkeys(row.role for row in caches)
    text = (
        "The outputs of the frozen backbone, computed once: a record for each clean photo and each augmented copy of a "
        f"training photo. F{'; f'.join(f'or {role}: {ROLES[role]}' for role in roles)}."
    )
    if {"the search's other views", "another policy"} & roles.keys():
        text += " Caches that differ only in their policy share clean records, so together they take less than the sum."
    tables = [Table(columns, rows, {3, 4, 6, 7, 8, 9})]
    if caches[0].role == "the search":
        try:
            tables.append(_probe_table(run))
            text += " The probe shows what the views of each policy cost: a logistic regression on them alone."
        except CacheError as error:
            text += f" The probe of the views is missing: {error}"
        parts = caches[0].facts["key_parts"] | {"key": caches[0].facts["key"]}
        values = [[name.replace("_", " "), _value(value)] for name, value in parts.items()]
        tables.append(Table(["part", "value"], values, summary="Everything that the search's features depend on"))
    return PageSection("cache", "Feature cache", text, tables=tables)


def _probe_table(run: Run) -> Table:
    """The probe's accuracies by policy, as in `features info`."""
    found = view_accuracies({name: cache_for(run, name) for name in policy_sections(run.features)})
    rows = [
        [name, share(accuracy), "" if name == "clean" else f"{100 * (accuracy - found['clean']):+z.1f}"]
        for name, accuracy in found.items()
    ]
    return Table(["probe trained on", "accuracy on clean validation photos", "points from clean"], rows, {1, 2})


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
