"""Pooling: its parts against numpy, scipy and scikit-learn on the same maps."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA

from features.backbones.networks import build_extractor
from features.backbones.pooling_layers import build_pooling
from features.backbones.projection import add_moments, fit, moments_of
from features.backbones.table import BACKBONES, pooling
from features.building.build import build_cache
from features.building.doctor import repair, verify
from features.cache.feature_cache import cache_for
from features.cache.keys import key_parts
from features.cache.projections import projection_path
from features.config import FeaturesConfig, FeaturesRun
from features.dataset.images import load_images
from features.dataset.index import load_index
from features.pooling import ALLOWED, columns_of, layout, parse_pooling, pooling_name
from features.runtime.errors import CacheError, UsageError
from tests.conftest import run_headhunt

MakeRun = Callable[..., FeaturesRun]


def maps(*shape: int, seed: int = 0) -> Any:
    """Correlated channels, so that covariances are informative."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(shape[-1], shape[-1])) + 2 * np.eye(shape[-1])
    return (random.normal(size=shape) @ mixing + random.normal(size=shape[-1])).astype(np.float32)


def projection(x: Any, components: int) -> Any:
    return fit(moments_of(x), components)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("avg", "avg"), ("gem:3.0", "gem:3"), ("avg + covariance:64", "avg+covariance:64"), ("none", "none")],
)
def test_a_pooling_has_one_name(text: str, canonical: str) -> None:
    assert pooling_name(parse_pooling(text)) == canonical
    assert FeaturesConfig(pooling=text).pooling == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "avrg",
        "avg+",
        "gem",
        "gem:0",
        "gem:-1",
        "gem:inf",
        "gem:7",
        "gem:1e+06",
        "gem:3+gem:3.0000001",
        "covariance:6_4",
        "covariance",
        "covariance:1",
        "covariance:257",
        "avg+none",
    ],
)
def test_what_is_no_pooling_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"allowed: {ALLOWED}")):
        parse_pooling(text)


def test_a_part_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="duplicate part in"):
        parse_pooling("avg+max+avg")


def test_every_part_is_what_numpy_and_scipy_make_of_the_map() -> None:
    x, components = maps(4, 12, 11, 5), 3
    kernel = projection(x, components)
    model = build_pooling("avg+max+gem:3+covariance:3", [(12, 11, 5)], [kernel])
    found = np.asarray(model(x))
    flat = x.reshape(4, -1, 5).astype(np.float64)
    gem = np.cbrt((np.maximum(flat, 1e-6) ** 3).mean(1))
    rows, columns = np.triu_indices(components)
    scale = np.where(rows == columns, 1, np.sqrt(2))
    roots = [sqrtm(np.cov(places @ kernel.kernel, rowvar=False, bias=True)) for places in flat]
    covariance = [np.real(root)[rows, columns] * scale for root in roots]
    expected = np.concatenate([flat.mean(1), flat.max(1), gem, covariance], axis=1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3)
    assert layout("avg+max+gem:3+covariance:3", [5]) == (("avg", 5), ("max", 5), ("gem:3", 5), ("covariance:3", 6))


def test_distances_of_the_vectors_are_those_of_the_matrices() -> None:
    x = maps(2, 9, 9, 4)
    vectors = np.asarray(build_pooling("covariance:4", [(9, 9, 4)], [projection(x, 4)])(x), np.float64)
    kernel = projection(x, 4).kernel
    one, other = (np.real(sqrtm(np.cov(m.reshape(-1, 4) @ kernel, rowvar=False, bias=True))) for m in x)
    assert np.linalg.norm(vectors[0] - vectors[1]) == pytest.approx(np.linalg.norm(one - other), rel=5e-3)


def test_the_components_are_those_of_scikit_learn() -> None:
    x = maps(6, 5, 5, 7)
    ours = fit(add_moments([moments_of(x[:2]), moments_of(x[2:])]), 4).kernel
    theirs = PCA(4, svd_solver="full").fit(x.reshape(-1, 7)).components_.T
    assert ours.dtype == np.float32
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-3)
    assert (ours[np.abs(ours).argmax(0), range(4)] > 0).all()
    assert fit(moments_of(x), 99).kernel.shape == (7, 7)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_map_without_variance_has_a_finite_covariance_and_gradient(value: float) -> None:
    import tensorflow as tf

    model = build_pooling("avg+covariance:3", [(4, 4, 5)], [projection(maps(2, 4, 4, 5), 3)])
    x = tf.fill((2, 4, 4, 5), value)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(model(x) ** 2)
    assert np.isfinite(model(x).numpy()).all()
    assert np.abs(model(x).numpy()[:, 5:]).max() < 1e-3
    assert np.isfinite(tape.gradient(total, x).numpy()).all()


def test_gradients_are_those_of_finite_differences() -> None:
    import tensorflow as tf

    x = maps(1, 5, 5, 4)
    model = build_pooling("gem:3+covariance:3", [(5, 5, 4)], [projection(maps(8, 5, 5, 4, seed=1), 3)])
    weights = np.random.default_rng(2).normal(size=model.output.shape[1]).astype(np.float32)
    with tf.GradientTape() as tape:
        given = tf.constant(x)
        tape.watch(given)
        total = tf.reduce_sum(model(given) * weights)
    gradient = tape.gradient(total, given).numpy()
    for place in ((0, 0, 0, 0), (0, 2, 3, 1), (0, 4, 4, 3)):
        step = np.zeros_like(x)
        step[place] = 1e-2
        difference = float(np.sum((np.asarray(model(x + step)) - np.asarray(model(x - step))) * weights)) / 2e-2
        assert gradient[place] == pytest.approx(difference, rel=2e-2, abs=2e-3)


def test_it_is_saved_with_what_keras_has(tmp_path: Path) -> None:
    x = maps(3, 4, 4, 6)
    model = build_pooling("avg+max+gem:3+covariance:4", [(4, 4, 6)], [projection(x, 4)])
    model.save(tmp_path / "pooling.keras")
    loaded = keras.saving.load_model(tmp_path / "pooling.keras", safe_mode=True, custom_objects={})
    np.testing.assert_array_equal(np.asarray(loaded(x)), np.asarray(model(x)))
    assert not model.trainable_weights


def test_several_maps_are_pooled_each_and_joined(make_run: MakeRun) -> None:
    run = make_run(cut=("conv2d", "conv2d_1"), pooling="avg+covariance:3", **own_layers(make_run))
    assert build_cache(run)["shards_written"] > 0
    cache = cache_for(run)
    assert cache.parts == (("avg", 4), ("covariance:3", 6), ("avg", 6), ("covariance:3", 6))
    assert cache.feature_shape == (22,)
    assert cache.shape_of("avg") == (10,)
    whole, _ = cache.arrays("val")
    averages, _ = cache.arrays("val", parts="avg")
    np.testing.assert_array_equal(averages, np.concatenate([whole[:, :4], whole[:, 10:16]], axis=1))
    alone = make_run("alone", cut=("conv2d", "conv2d_1"), pooling="avg", **own_layers(make_run))
    build_cache(alone)
    np.testing.assert_array_equal(cache_for(alone).arrays("val")[0], averages)
    assert verify(run)["ok"]


def test_the_smaller_of_two_covariances_is_the_beginning_of_the_larger_ones(make_run: MakeRun) -> None:
    run = make_run(pooling="covariance:2+avg+covariance:4")
    build_cache(run)
    cache = cache_for(run)
    assert cache.parts == (("covariance:2", 3), ("avg", 6), ("covariance:4", 10))
    alone = make_run("alone", pooling="covariance:2")
    build_cache(alone)
    np.testing.assert_array_equal(cache_for(alone).arrays("val")[0], cache.arrays("val", parts="covariance:2")[0])


def own_layers(make_run: MakeRun) -> dict[str, Any]:
    """The tiny backbone again, with unique layer names."""
    given = Path(make_run(prepared=False).features.backbone)
    path = given.with_name("named.keras")
    if not path.exists():
        model = keras.saving.load_model(given, compile=False)
        names = iter(("conv2d", "bn", "relu", "conv2d_1"))

        def renamed(layer: Any) -> Any:
            if isinstance(layer, keras.layers.InputLayer):
                return layer
            return type(layer).from_config({**layer.get_config(), "name": next(names)})

        copy = keras.models.clone_model(model, clone_function=renamed)
        copy.set_weights(model.get_weights())
        copy.save(path)
    return {"backbone": str(path)}


WORKERS = ("--set", "features.workers.count=2", "--set", "features.workers.cpus=1")

DEFAULT_POOLING = "avg+max+covariance:4"


def test_the_cache_holds_what_the_network_gives(make_run: MakeRun) -> None:
    run = make_run(pooling=DEFAULT_POOLING)
    build_cache(run)
    cache = cache_for(run)
    assert cache.parts == (("avg", 6), ("max", 6), ("covariance:4", 10))
    network = build_extractor(run.features, "float32", cache.projections)
    rows = load_index(run).of_split("val").index.tolist()
    photos = load_images(load_index(run), rows, (32, 32), False).astype(np.float32)
    np.testing.assert_allclose(np.asarray(network(photos)), cache.arrays("val")[0], rtol=2e-3, atol=2e-3)


def test_the_same_bytes_whatever_the_workers_and_their_order(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("one", pooling=DEFAULT_POOLING, images_per_shard=4)
    build_cache(run)
    raw = run.model_copy(update={"workdir": Path("two")}).model_dump(mode="json", exclude_none=True)
    raw["features"]["backbone"] = os.path.relpath(run.features.backbone, tmp_path)
    (tmp_path / "headhunt.yaml").write_text(yaml.safe_dump(raw))
    shutil.copytree(run.workdir / "dataset", tmp_path / "two" / "dataset")
    run_headhunt(tmp_path, "features", "cache", "--executor", "ray", *WORKERS)
    folder = cache_for(run).folder
    names = [
        path.name for path in folder.iterdir() if path.suffix in (".tfrecord", ".npy") or path.name == "manifest.json"
    ]
    assert "projection-1.npy" in names
    for name in names:
        assert (tmp_path / "two" / "cache" / folder.name / name).read_bytes() == (folder / name).read_bytes(), name


def test_another_pooling_leaves_the_shards_that_are_there(make_run: MakeRun) -> None:
    run = make_run(pooling="avg")
    build_cache(run)
    folder = cache_for(run).folder
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    build_cache(run.model_copy(update={"features": run.features.model_copy(update={"pooling": DEFAULT_POOLING})}))
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()} == before


def test_another_training_set_is_another_key_and_projection(make_run: MakeRun) -> None:
    run, other = make_run(pooling=DEFAULT_POOLING), make_run("other", pooling=DEFAULT_POOLING)
    index = load_index(run)
    table = index.table.copy()
    table.loc[table["split"] == "train", "split"] = ["val", *["train"] * (int((table["split"] == "train").sum()) - 1)]
    changed = type(index)(table, index.class_names, index.root)
    assert key_parts(run, index)["projection"] == key_parts(other, load_index(other))["projection"]
    assert key_parts(run, index)["projection"] != key_parts(run, changed)["projection"]
    assert "projection" not in key_parts(make_run(prepared=False, pooling="avg"), index)


def test_a_flipped_or_lost_projection_is_found_and_fitted_again(make_run: MakeRun) -> None:
    run = make_run(pooling=DEFAULT_POOLING)
    build_cache(run)
    folder = cache_for(run).folder
    path = projection_path(folder, 1)
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in ("build.json", ".lock")}
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    checksum = folder / f".{path.name}.sha256.json"
    other = checksum.read_text().replace('"sha256": "', '"sha256": "0')
    for damage in (
        lambda: path.write_bytes(data),
        path.unlink,
        checksum.unlink,
        lambda: checksum.write_text(other),
        lambda: (checksum.write_text(other), path.unlink()),
    ):
        damage()
        assert [fault["shard"] for fault in verify(run)["faults"]] == [path.name]
        repair(run)
        assert verify(run)["ok"]
        assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name in before} == before
    path.write_bytes(data)
    with pytest.raises(CacheError, match=r"projection-1\.npy is damaged\. Run `headhunt features repair`"):
        _ = cache_for(run).projections


def test_a_backbone_of_nan_is_told_before_components_are_fitted(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(pooling=DEFAULT_POOLING)
    model = keras.models.load_model(run.features.backbone)
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    model.save(tmp_path / "nan.keras")
    with pytest.raises(
        CacheError, match=r"the backbone output NaN or infinity for photos of train\. Check the weights"
    ):
        build_cache(make_run("nan", pooling=DEFAULT_POOLING, backbone=str(tmp_path / "nan.keras")))


def test_shards_are_never_joined_by_another_projection(make_run: MakeRun) -> None:
    run = make_run(pooling=DEFAULT_POOLING)
    build_cache(run)
    folder = cache_for(run).folder
    projection_path(folder, 1).unlink()
    checksum = folder / ".projection-1.npy.sha256.json"
    checksum.write_text(checksum.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(
        CacheError, match="is missing or damaged, and refitting it on this machine does not give the projection"
    ):
        build_cache(make_run(prepared=False, pooling=DEFAULT_POOLING, copies=2))


def test_other_copies_and_policies_share_the_projection(make_run: MakeRun) -> None:
    build_cache(make_run(pooling=DEFAULT_POOLING))
    grown, mild = make_run(pooling=DEFAULT_POOLING, copies=2), make_run(pooling=DEFAULT_POOLING, augmentation="mild")
    build_cache(grown)
    build_cache(mild)
    assert cache_for(grown).projections == cache_for(mild).projections
    np.testing.assert_array_equal(cache_for(grown).arrays("val")[0], cache_for(mild).arrays("val")[0])


def test_parts_that_are_not_cached_are_named() -> None:
    record = layout("avg+max+covariance:4", [6])
    assert columns_of(record, "max+covariance:4", "here") == [slice(6, 22)]
    assert columns_of(record, "covariance:4+avg", "here") == [slice(0, 6), slice(12, 22)]
    with pytest.raises(
        UsageError, match=r"here: received 'gem:3'; the cache has avg, max, covariance:4. Choose from these"
    ):
        columns_of(record, "gem:3", "here")
    with pytest.raises(UsageError, match="unpooled maps, which have no parts"):
        columns_of((), "avg", "here")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image_size": 128}, "avg+max+covariance:64"),
        ({"image_size": 127}, "avg"),
        ({"backbone": "inceptionv3", "image_size": 170}, "avg"),
        ({"backbone": "inceptionv3", "image_size": 171}, "avg+max+covariance:64"),
        ({"backbone": "own.keras", "image_size": 224, "cut": "conv4"}, "avg+max+covariance:64"),
        ({"image_size": 224, "pooling": "none"}, "none"),
    ],
)
def test_the_default_goes_by_the_places_of_the_last_map(changes: dict[str, Any], expected: str) -> None:
    assert pooling(FeaturesConfig.model_validate(changes)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50v2", "mobilenetv2", "inceptionv3", "inceptionresnetv2", "xception", "densenet121",
                                  "vgg16", "nasnetmobile", "efficientnetv2b0", "convnexttiny", "efficientnet_lite0"])  # fmt: skip
def test_the_smallest_size_with_16_places_is_that_of_the_network(name: str) -> None:
    smallest = BACKBONES[name].smallest_pooled

    def places(size: int) -> int:
        config = FeaturesConfig(backbone=name, weights="random", image_size=size, pooling="none")
        height, width = build_extractor(config, "float32").output.shape[1:3]
        return int(height * width)

    assert places(smallest) >= 16 > places(smallest - 32)


def test_a_list_of_cuts_is_checked_before_anything_runs() -> None:
    for cut, message in (
        (("a",), "at least two layers, all different"),
        (("a", "a"), "at least two layers, all different"),
    ):
        with pytest.raises(ValueError, match=message):
            FeaturesConfig(cut=cut)
    with pytest.raises(ValueError, match="several maps cannot be joined without pooling"):
        FeaturesConfig(cut=("a", "b"), pooling="none")


def test_a_pooling_that_is_none_of_them_is_one_message(make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "headhunt.yaml").write_text("dataset: {kind: toy_cars}\nfeatures: {pooling: avg+median}\n")
    with pytest.raises(
        AssertionError, match=r"features\.pooling: received 'avg\+median'; allowed: none, or parts joined by"
    ):
        run_headhunt(tmp_path, "features", "info")
