from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from features.build import build_cache
from features.cache import MANIFEST, FeatureCache, cache_for, cache_key, key_parts
from features.config import FeaturesRun
from features.dataset import load_index
from features.errors import CacheError

MakeRun = Callable[..., FeaturesRun]


def test_arrays_are_in_the_order_of_the_index(cached_run: FeaturesRun) -> None:
    cache, index = cache_for(cached_run), load_index(cached_run)
    for split in ("train", "val", "test"):
        features, labels = cache.arrays(split)
        rows = index.of_split(split)
        assert features.shape == (len(rows), 6)
        assert (features.dtype, labels.dtype) == (np.float16, np.int32)
        np.testing.assert_array_equal(labels, rows["label"])
        np.testing.assert_array_equal(cache.images(split), rows.index)
    assert cache.copies == 1
    assert cache.class_names == ("a", "b", "c")
    assert cache.feature_shape == (6,)


def test_a_copy_that_is_not_cached_is_refused(cached_run: FeaturesRun) -> None:
    cache = cache_for(cached_run)
    clean, augmented = cache.arrays("train")[0], cache.arrays("train", 1)[0]
    assert (clean != augmented).any()
    for split, copy in (("train", 2), ("val", 1)):
        with pytest.raises(CacheError, match=f"holds no copy {copy} of {split}; it has 1 augmented copies of train"):
            cache.arrays(split, copy)


KEY_CHANGES = [
    {"image_size": 16},
    {"pooling": "max"},
    {"dtype": "float32"},
    {"compute": "bfloat16"},
    {"augmentation": "mild"},
    {"augmentation": {"policy": "flip_rotate_zoom", "clean_probability": 0.1}},
    {"augmentation": [{"layer": "RandomBrightness", "factor": 0.2}]},
    {"seed": 1},
    {"preprocessing": "densenet"},
    {"backbone": "mobilenet", "weights": "random", "preprocessing": None},
]


@pytest.mark.parametrize("change", KEY_CHANGES, ids=lambda change: next(iter(change)))
def test_the_key_changes_with_what_the_numbers_depend_on(make_run: MakeRun, change: dict[str, object]) -> None:
    run = make_run()
    index = load_index(run)
    changed = make_run(prepared=False, **change)
    assert cache_key(key_parts(run, index)) != cache_key(key_parts(changed, index))


def test_the_key_does_not_change_with_the_rest(make_run: MakeRun) -> None:
    run = make_run()
    index = load_index(run)
    same = make_run("elsewhere", prepared=False, copies=5, workers={"executor": "ray", "count": 3})
    assert cache_key(key_parts(run, index)) == cache_key(key_parts(same, index))


def test_who_draws_is_part_of_the_key_where_it_decides_the_views(make_run: MakeRun) -> None:
    """On a GPU, Keras's layers draw with JAX; merged geometric layers draw the same numbers everywhere."""
    index = load_index(make_run())
    for augmentation, differs in (("mild", False), ("rand_augment", True)):
        keys = {
            cache_key(key_parts(make_run(augmentation=augmentation, workers={"gpus": gpus}), index)) for gpus in (0, 1)
        }
        assert (len(keys) == 2) == differs


def test_a_missing_cache_is_named_with_what_differs(make_run: MakeRun) -> None:
    with pytest.raises(CacheError, match=r"no feature cache for this configuration\. Run `headhunt features cache`"):
        cache_for(make_run())
    build_cache(make_run(copies=0))
    with pytest.raises(CacheError, match=r"\(\w{16} was made with another pooling, augmentation\)"):
        cache_for(make_run(copies=0, pooling="max", augmentation="mild"))
    with pytest.raises(CacheError, match=r"features.copies is 3, but the cache holds 0.*adds the missing ones"):
        cache_for(make_run(copies=3))


def test_a_damaged_manifest_is_refused(cached_run: FeaturesRun) -> None:
    folder = cache_for(cached_run).folder
    for text in ("{", '{"key": 3}'):
        (folder / MANIFEST).write_text(text)
        with pytest.raises(CacheError, match=r"manifest\.json is damaged or of another version"):
            FeatureCache.open(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(CacheError, match="there is no finished feature cache"):
        FeatureCache.open(folder)


def test_reading_imports_no_framework(cached_run: FeaturesRun) -> None:
    script = """
import sys
from features.cache import cache_for
from features.config import FeaturesRun
cache = cache_for(FeaturesRun.model_validate_json(sys.argv[1]))
print(len(cache.arrays("train", 1)[0]), sorted({"tensorflow", "keras", "jax", "ray"} & set(sys.modules)))
"""
    printed = subprocess.run(
        [sys.executable, "-P", "-c", script, cached_run.model_dump_json()], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split(maxsplit=1)[1].strip() == "[]"


def test_the_manifest_says_what_it_holds(cached_run: FeaturesRun) -> None:
    cache = cache_for(cached_run)
    manifest = json.loads((cache.folder / MANIFEST).read_text())
    assert manifest["key"].startswith(cache.folder.name)
    assert sum(manifest["splits"].values()) == 24
    assert manifest["policy"] == "flip_rotate_zoom"
