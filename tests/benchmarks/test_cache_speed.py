"""The feature cache against its bounds: the bare backbone, np.load, and tf.data on the same files.

Every figure is a median of repeats that take turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.backbones.extract import extractor
from features.backbones.networks import build_maps
from features.building.build import build_cache
from features.building.doctor import verify
from features.cache import integrity
from features.cache.feature_cache import FeatureCache, cache_for
from features.cache.manifest import FORMAT_VERSION, Manifest, ShardEntry, cache_key, write_manifest
from features.cache.shards import Shard, write_shard
from features.config import FeaturesConfig, FeaturesRun
from features.dataset.images import load_images
from features.dataset.index import load_index
from features.dataset.prepare import prepare

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT.parent / "shared" / "data" / "stanford_cars_50"
SLIM = ROOT.parent / "shared" / "data" / "weights" / "resnet101v2_slim_imagenet_conv1_to_conv4.keras"

DEVKIT = {"kind": "stanford_cars", "root": str(PHOTOS), "on_missing": "skip"}


def alternating(repeats: int, **calls: Callable[[], Any]) -> dict[str, float]:
    """The median seconds of each call; they take turns, so that the machine's drift meets them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def toy_run(
    workdir: Path, per_class: int, size: int, dataset: dict[str, Any] | None = None, **features: Any
) -> FeaturesRun:
    run = FeaturesRun.model_validate(
        {
            "workdir": workdir,
            "dataset": {"kind": "toy_cars", "per_class": per_class, "image_size": size, **(dataset or {})},
            "features": {"weights": "random", "workers": {"executor": "local"}, **features},
        }
    )
    prepare(run)
    return run


def test_building_against_the_bare_backbone(tmp_path: Path) -> None:
    """From JPEG files to finished shards of the default pooling, against `predict_on_batch` of the mean-pooled network on arrays
    that are in memory already.

    64 + 32 + 32 photos: whole batches, as nearly all of them are in a data set of thousands.
    """
    import keras

    split = {"train": 0.5, "val": 0.25, "test": 0.25}
    run = toy_run(tmp_path / "run", 8, 256, {"classes": 16, "split": split}, copies=4)
    index, config = load_index(run), run.features
    photos = load_images(index, range(96), (224, 224), False).astype(np.float32)
    maps = build_maps(config, "mixed_bfloat16" if _compute(config) == "bfloat16" else "float32")
    model = keras.Model(maps.inputs, keras.layers.GlobalAveragePooling2D()(maps.outputs[0]))
    model.compile(jit_compile=False)  # XLA is slower for convolutions on a CPU
    views = 4 * int((index.table["split"] == "train").sum()) + len(index.table)

    def bare() -> None:
        for _ in range(3):
            for start in range(0, len(photos), config.batch_size):
                model.predict_on_batch(photos[start : start + config.batch_size])

    built = iter(range(100))

    def ours() -> None:
        build_cache(run.model_copy(update={"workdir": _moved(run, tmp_path / f"built-{next(built)}")}))

    extractor.cache_clear()
    ours()  # the backbone is built, traced and warm
    bare()
    seconds = alternating(3, ours=ours, bare=bare)
    rate, bound = views / seconds["ours"], 3 * len(photos) / seconds["bare"]
    print(
        f"\nResNet101V2, 224 px, batch {config.batch_size}, {_compute(config)}, Keras on {keras.backend.backend()}: "
        f"features cache, 4 copies, JPEG to shards {rate:.1f} images/s; bare predict_on_batch {bound:.1f}; "
        f"ratio {rate / bound:.3f}"
    )


def _compute(config: FeaturesConfig) -> str:
    from features.backbones.table import compute_dtype

    return compute_dtype(config)


def _moved(run: FeaturesRun, workdir: Path) -> Path:
    """Another workdir with the same index, so that a build begins anew."""
    workdir.mkdir()
    (workdir / "dataset").symlink_to((run.workdir / "dataset").resolve())
    return workdir


def test_loading_against_np_load_and_tf_data(tmp_path: Path) -> None:
    """20,000 × 2,048 float16 features in shards of 128, as the default configuration stores them."""
    import tensorflow as tf

    features = np.random.default_rng(0).normal(size=(20_000, 2048)).astype(np.float16)
    cache = _written(tmp_path, features)
    np.save(tmp_path / "half.npy", features)
    np.save(tmp_path / "single.npy", features.astype(np.float32))
    files = [str(cache.folder / entry.file) for entry in cache.manifest.shards]
    wanted = {"features": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def parsed(dtype: Any) -> Callable[[], Any]:
        def parse(records: Any) -> Any:
            example = tf.io.parse_example(records, wanted)
            return tf.cast(tf.io.decode_raw(example["features"], tf.float16), dtype), example["label"]

        def read() -> Any:
            data = tf.data.TFRecordDataset(files, num_parallel_reads=4, buffer_size=1 << 22).batch(1024)
            data = data.map(parse, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
            return np.concatenate([part for part, _ in data.as_numpy_iterator()])

        return read

    assert (cache.arrays("train")[0] == features).all()
    assert len(parsed(tf.float16)()) == len(features)
    print()
    for name, numpy_type, tf_type in (("half", np.float16, tf.float16), ("single", np.float32, tf.float32)):

        def ours(dtype: Any = numpy_type) -> None:
            cache.arrays("train", 0, dtype)

        def plain(file: str = name) -> None:
            np.load(tmp_path / f"{file}.npy")

        seconds = alternating(15, ours=ours, np_load=plain, tf_data=parsed(tf_type))
        print(
            f"20,000 × 2,048 float16 features as {np.dtype(numpy_type)}: arrays {seconds['ours']:.3f} s, np.load "
            f"{seconds['np_load']:.3f} s (ours takes {seconds['ours'] / seconds['np_load']:.2f} of it), tf.data "
            f"{seconds['tf_data']:.3f} s ({seconds['tf_data'] / seconds['ours']:.1f} times ours)"
        )
    shards = [(Path(file), entry.records) for file, entry in zip(files, cache.manifest.shards, strict=True)]

    def checked() -> None:
        integrity._sound.clear()  # as a process that reads these files for the first time
        integrity.check_shards(shards, (2048,), "float16")

    def read() -> None:
        for file, _ in shards:
            file.read_bytes()

    seconds = alternating(15, checked=checked, read=read)
    stored = sum(Path(file).stat().st_size for file in files)
    print(
        f"every record's checksum: {stored / seconds['checked'] / 1e9:.1f} GB/s, {seconds['checked'] / seconds['read']:.2f} of "
        f"the time in which the files are read ({stored / seconds['read'] / 1e9:.1f} GB/s)"
    )
    print(f"{stored / features.nbytes:.4f} bytes on disk for each byte of features")


def _written(folder: Path, features: np.ndarray) -> FeatureCache:
    entries = []
    for number, start in enumerate(range(0, len(features), 128)):
        rows = np.arange(start, min(start + 128, len(features)))
        file = f"train-c000-{number:05d}.tfrecord"
        write_shard(folder / file, Shard(features[rows], rows % 196, rows))
        entries.append(ShardEntry(file=file, split="train", copy_number=0, records=len(rows), sha256=""))
    manifest = Manifest(
        format_version=FORMAT_VERSION, key=cache_key({}), key_parts={}, feature_shape=features.shape[1:], dtype="float16",
        class_names=("a",), policy="none", copies=0, splits={"train": len(features)}, shards=tuple(entries),
    )  # fmt: skip
    write_manifest(folder, manifest)
    return FeatureCache.open(folder)


def test_verifying(tmp_path: Path) -> None:
    """Maps of 16 × 16 × 256 float16, 131 kB an image, and pooled vectors of 2,048."""
    import keras

    print()
    for shape, per_class, copies, pooling in (((16, 256), 40, 3, "none"), ((4, 2048), 400, 8, "avg")):
        side, channels = shape
        inputs = keras.Input((32, 32, 3))
        outputs = keras.layers.Conv2D(channels, 1, strides=32 // side)(inputs)
        keras.Model(inputs, outputs).save(tmp_path / f"{pooling}.keras")
        features = {"backbone": str(tmp_path / f"{pooling}.keras"), "preprocessing": "resnet_v2", "image_size": 32}
        run = toy_run(tmp_path / pooling, per_class, 32, **features, copies=copies, pooling=pooling)
        build_cache(run)
        found = verify(run)
        assert found["ok"]
        seconds = alternating(5, verify=lambda run=run: verify(run))["verify"]
        print(
            f"verify, {found['bytes'] / 1e6:.0f} MB of {cache_for(run).feature_shape} float16: {seconds:.2f} s, "
            f"{found['bytes'] / 1e6 / seconds:.0f} MB/s"
        )


def test_the_memory_of_a_build(tmp_path: Path) -> None:
    """The largest resident set of the building process, for 1,000 and for 10,000 drawn cars."""
    import keras

    inputs = keras.Input((64, 64, 3))
    keras.Model(inputs, keras.layers.Conv2D(512, 3, strides=8)(inputs)).save(tmp_path / "small.keras")
    print()
    for images in (1_000, 10_000):
        workdir = tmp_path / str(images)
        raw = {
            "workdir": str(workdir),
            "dataset": {"kind": "toy_cars", "classes": 50, "per_class": images // 50, "image_size": 64},
            "features": {
                "backbone": str(tmp_path / "small.keras"),
                "preprocessing": "resnet_v2",
                "image_size": 64,
                "copies": 2,
                "workers": {"executor": "local"},
            },
        }
        file = tmp_path / f"{images}.json"
        file.write_text(json.dumps(raw))
        for stage in ("prepare", "cache"):
            command = [str(Path(sys.executable).with_name("headhunt")), "features", stage, "-c", str(file)]
            environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
            body = f"import resource, subprocess, sys; code = subprocess.call({command!r}, stderr=subprocess.DEVNULL, stdout=2); "
            body += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
            done = subprocess.run(
                [sys.executable, "-c", body], env=environment, capture_output=True, text=True, check=True
            )
            print(f"features {stage}, {images:,} toy cars: {int(done.stdout) / 1024:.0f} MiB at most")


NETWORKS: dict[str, dict[str, str]] = {
    "ResNet101V2 to conv4": {"backbone": str(SLIM), "preprocessing": "resnet_v2"},
    "MobileNetV2": {
        "backbone": "mobilenetv2",
        "weights": str(SLIM.with_name("mobilenet_v2_imagenet_notop.weights.h5")),
    },
    "EfficientNet-Lite0": {"backbone": "efficientnet_lite0"},
}


@pytest.mark.skipif(not (PHOTOS.is_dir() and SLIM.exists()), reason=f"needs {PHOTOS} and {SLIM}")
def test_bfloat16_against_float32_on_real_weights(tmp_path: Path) -> None:
    raw = {
        "workdir": tmp_path,
        "dataset": {
            **DEVKIT,
            "annotations": ["../stanford_cars_devkit/cars_train_annos.mat"],
            "meta": "../stanford_cars_devkit/cars_meta.mat",
        },
        "features": {"backbone": str(SLIM), "preprocessing": "resnet_v2", "image_size": 224},
    }
    run = FeaturesRun.model_validate(raw)
    prepare(run)
    photos = load_images(load_index(run), range(0, 2048, 32), (224, 224), False)
    print()
    for name, network in NETWORKS.items():
        found, rates = {}, {}
        for compute in ("bfloat16", "float32"):
            features = FeaturesConfig.model_validate(
                {**network, "image_size": 224, "pooling": "avg", "compute": compute}
            )
            extract = extractor(features.model_dump_json())
            extract(photos[:32])  # compiles
            started = time.monotonic()
            found[compute] = extract(photos)
            rates[compute] = len(photos) / (time.monotonic() - started)
        half, single = found["bfloat16"], found["float32"]
        cosines = (half * single).sum(1) / np.linalg.norm(half, axis=1) / np.linalg.norm(single, axis=1)
        error = np.sqrt(((half - single) ** 2).mean() / single.var(0).mean())
        print(
            f"bfloat16 against float32, {name}, {len(photos)} real photos: cosine {cosines.mean():.5f}, smallest "
            f"{cosines.min():.5f}; error {100 * error:.1f} % of the spread over photos; {rates['bfloat16']:.1f} against "
            f"{rates['float32']:.1f} photos/s"
        )
