from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from features.building.build import build_cache
from features.cache.feature_cache import FeatureCache, cache_for
from features.cache.keys import key_parts
from features.cache.manifest import MANIFEST, cache_key
from features.cache.views import Views, order_of_epoch
from features.config import FeaturesRun
from features.dataset.index import load_index
from features.dataset.prepare import prepare
from features.runtime.errors import CacheError

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
        with pytest.raises(CacheError, match=f"has no copy {copy} of {split}, only 1 augmented copy of train"):
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
    build_cache(make_run(copies=0, dtype="float32", pooling="avg+max"))
    with pytest.raises(CacheError) as caught:
        cache_for(make_run(copies=0, pooling="max", seed=3))
    assert re.search(
        r'configuration; the closest, \w{16}, differs in pooling \(has "avg", wanted "max"\), seed \(has 0, wanted 3\)\. Run',
        str(caught.value),
    )
    with pytest.raises(
        CacheError, match=r"3 copies of flip_rotate_zoom are configured, but the cache has 0\..*to add the missing ones"
    ):
        cache_for(make_run(copies=3))


def test_a_damaged_manifest_is_refused(cached_run: FeaturesRun) -> None:
    folder = cache_for(cached_run).folder
    whole = (folder / MANIFEST).read_text()
    for text in ("{", '{"key": 3}', whole.replace("flip_rotate", "flip-rotate"), whole + "\n"):
        (folder / MANIFEST).write_text(text)
        with pytest.raises(CacheError, match=r"manifest\.json is damaged \(.*Run `headhunt features repair`"):
            FeatureCache.open(folder)
    (folder / MANIFEST).write_text(whole.replace('"format_version": 2', '"format_version": 1'))
    with pytest.raises(
        CacheError, match=r"has format 1, but this version of Headhunt reads 2\. Run `headhunt features cache`"
    ):
        FeatureCache.open(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(CacheError, match="there is no finished feature cache"):
        FeatureCache.open(folder)


def test_reading_imports_no_framework(cached_run: FeaturesRun) -> None:
    script = """
import sys
from features.cache.feature_cache import cache_for
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


def test_a_manifest_of_another_cache_is_not_trusted(make_run: MakeRun) -> None:
    one, other = make_run(copies=0), make_run(copies=0, pooling="max")
    build_cache(one)
    build_cache(other)
    shutil.copyfile(cache_for(other).folder / MANIFEST, cache_for(one).folder / MANIFEST)
    with pytest.raises(
        CacheError, match=r"manifest\.json belongs to another cache, \w{16}\. Run `headhunt features repair`"
    ):
        cache_for(one)


@pytest.fixture(scope="module")
def three_copies(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, photos: Path) -> FeatureCache:
    features = {
        "backbone": str(tiny_backbone),
        "preprocessing": "resnet_v2",
        "image_size": 32,
        "images_per_shard": 4,
        "copies": 3,
        "pooling": "none",
        "workers": {"executor": "local"},
    }
    workdir = tmp_path_factory.mktemp("three")
    run = FeaturesRun.model_validate(
        {"workdir": workdir, "dataset": {"kind": "folder", "root": photos}, "features": features}
    )
    prepare(run)
    build_cache(run)
    return cache_for(run)


VIEWS = [
    Views(),
    Views(copies=0),
    Views(copies=2),
    Views(draw="per_image"),
    Views(clean_share=0.5),
    Views(copies=2, clean_share=0.5, draw="per_image"),
]


@pytest.mark.parametrize("views", VIEWS, ids=str)
def test_an_epoch_shows_each_image_the_copy_that_the_views_draw(three_copies: FeatureCache, views: Views) -> None:
    copies = [three_copies.arrays("train", copy)[0] for copy in range(4)]
    checked = views.checked(3, "flip_rotate_zoom")
    for epoch in (0, 1, 5):
        features, labels = three_copies.epoch(epoch, views, seed=9)
        drawn = checked.of_epoch(epoch, len(labels), 9)
        expected = np.stack([copies[copy][row] for row, copy in enumerate(drawn)])
        np.testing.assert_array_equal(features, expected)
        assert features.dtype == np.float16
        np.testing.assert_array_equal(labels, three_copies.labels("train"))


def test_arrays_in_another_dtype_hold_the_same_numbers(three_copies: FeatureCache) -> None:
    stored, asked = three_copies.arrays("train", 1)[0], three_copies.arrays("train", 1, np.float32)[0]
    assert asked.dtype == np.float32
    np.testing.assert_array_equal(stored.astype(np.float32), asked)
    np.testing.assert_array_equal(stored, three_copies.mapped("train", 1)[:])


def test_batches_are_the_epoch_in_the_order_that_the_search_sees(three_copies: FeatureCache) -> None:
    views = Views(clean_share=0.25, draw="per_image")
    batches = three_copies.batches("train", 5, views, seed=2)
    for epoch in (0, 3):
        features, labels = three_copies.epoch(epoch, views, 2)
        order = order_of_epoch(epoch, len(labels), 2)
        read = list(batches.epoch(epoch))
        assert len(read) == len(batches) == -(-len(labels) // 5)
        np.testing.assert_array_equal(np.concatenate([batch for batch, _ in read]), features[order])
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in read]), labels[order])


def test_validation_batches_are_clean_and_in_order(three_copies: FeatureCache) -> None:
    read = list(three_copies.batches("val", 2).epoch(4))
    np.testing.assert_array_equal(np.concatenate([batch for batch, _ in read]), three_copies.arrays("val")[0])


def test_keras_and_tf_data_see_another_copy_every_epoch(three_copies: FeatureCache) -> None:
    import keras

    batches = three_copies.batches("train", 5, seed=1)
    epochs = [[features for features, _ in batches.epoch(epoch)] for epoch in range(3)]
    seen: list[np.ndarray] = []

    class Watch(keras.layers.Layer):
        def call(self, inputs: object) -> object:
            seen.append(np.asarray(inputs))
            return inputs

        def compute_output_shape(self, input_shape: object) -> object:
            return input_shape

    inputs = keras.Input(three_copies.feature_shape)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(Watch()(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    seen.clear()
    model.fit(batches.keras_dataset(), epochs=3, verbose=0, shuffle=False)
    expected = [features.astype(np.float32) for epoch in epochs for features in epoch]
    assert len(seen) == len(expected)
    for got, wanted in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    dataset = batches.tf_dataset()
    for epoch in epochs:
        for (got, _), wanted in zip(dataset, epoch, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_a_batch_size_of_nothing_is_refused(three_copies: FeatureCache) -> None:
    with pytest.raises(ValueError, match="`batch_size >= 1` must hold, but got 0"):
        three_copies.batches("train", 0)
