"""The page's section about feature caches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from features.audit.view_accuracies import view_accuracies
from features.augmentation.augment import POLICIES
from features.building.build import build_caches
from features.cache.feature_cache import cache_for
from features.cache.manifest import cache_key, write_manifest
from reports.config import Run
from reports.dataset.caches import collect, section
from reports.section import LeftOutError


def another(run: Run, policy: str, **parts: Any) -> None:
    """Adds a cache beside the run's own, as if built with these key parts."""
    own = cache_for(run)
    changed = own.manifest.key_parts | parts
    key = cache_key(changed)
    folder = own.folder.with_name(key[:16])
    folder.mkdir()
    write_manifest(folder, own.manifest.model_copy(update={"key": key, "key_parts": changed, "policy": policy}))


def test_the_own_cache_in_numbers(searched: Run) -> None:
    (row,) = collect(searched)
    cache = cache_for(searched)
    assert (row.role, row.facts["key"], row.facts["copies"]) == ("the search", cache.key, 2)
    assert row.records == 24 + 2 * cache.manifest.splits["train"]
    assert row.facts["bytes"] == sum(path.stat().st_size for path in cache.folder.glob("*.tfrecord"))
    made = section(searched)
    built = row.facts["last_build"]
    shown = [cache.key[:16], "the search", "flip_rotate_zoom", "2", "6", "float16", str(row.records)]
    assert made.tables[0].rows[0][:7] == shown
    assert made.tables[0].rows[0][8:] == [f"{built['seconds']:,.0f} s", f"{built['images_per_second']:,.1f}"]
    parts = dict(made.tables[2].rows)
    assert (parts["image size"], parts["pooling"], parts["cut"], parts["key"]) == ("[32, 32]", "avg", "null", cache.key)


def test_every_cache_is_told_what_it_is_for_and_the_own_comes_first(searched: Run) -> None:
    own = cache_for(searched)
    mild = POLICIES["mild"].model_dump(mode="json")
    another(searched, "older", image_size=[64, 64])
    another(searched, "custom", cut="conv2d_1", pooling="none", augmentation=mild)
    another(searched, "mild", augmentation=mild)
    assert [row.role for row in collect(searched)] == [
        "the search",
        "fine-tuning",
        "another configuration",
        "another configuration",
    ]
    features = searched.features.model_copy(update={"augmentation": ["flip_rotate_zoom", "mild"]})
    run = searched.model_copy(update={"features": features})
    rows = collect(run)
    assert [(row.role, row.facts["policy"]) for row in rows] == [
        ("the search", own.manifest.policy),
        ("another policy", "mild"),
        ("fine-tuning", "custom"),
        ("another configuration", "older"),
    ]
    open_views = run.model_copy(update={"search": run.search.model_copy(update={"views": None})})
    assert [row.role for row in collect(open_views)][:2] == [
        "the search",
        "the search's other views",
    ]  # trials draw both
    assert rows[1].facts["last_build"] is None
    made = section(run)
    assert made.tables[0].rows[1][8:] == ["unknown", "unknown"]
    assert "share clean records" in made.text
    assert (
        "The probe of the views is missing: " in made.text
    )  # the manifest of the mild cache lists shards that do not exist


def test_the_section_says_what_the_views_of_each_policy_cost(searched: Run) -> None:
    features = searched.features.model_copy(update={"augmentation": ["flip_rotate_zoom", "mild"]})
    run = searched.model_copy(update={"features": features})
    build_caches(run)
    found = view_accuracies({name: cache_for(run, name) for name in ("flip_rotate_zoom", "mild")})
    rows = section(run).tables[1].rows
    assert [row[0] for row in rows] == ["clean", "flip_rotate_zoom", "mild"]
    assert [row[1] for row in rows] == [f"{100 * accuracy:.1f} %" for accuracy in found.values()]
    assert [row[2] for row in rows] == [
        "",
        *(f"{100 * (found[name] - found['clean']):+.1f}" for name in ("flip_rotate_zoom", "mild")),
    ]


def test_without_a_cache_the_section_names_the_command(searched: Run) -> None:
    shutil.rmtree(Path(searched.workdir) / "cache")
    with pytest.raises(LeftOutError, match="run `headhunt features cache`"):
        section(searched)
