"""What a trial costs: through the network, from a cache of the kind that the 2021 notebooks used, and from ours.

Times are measured on a sample of the training photos and scaled to the whole: all three are proportional to the number of photos
and of epochs. Measured in a process of its own, whose Keras is on the backend of whole networks.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from features.atomic import make_folder
from features.augment import Augmenter, resolve_policy
from features.backbones import compute_dtype
from features.cache import cache_for
from features.dataset import DatasetIndex, load_index
from features.executors import open_executor
from features.extract import Extractor
from features.keys import for_workers
from reports.config import Run
from search.heads import build_head, feature_moments
from search.leaderboard import Leader
from search.population.objective import Task, train_trials
from search.population.sources import Caches
from search.study import environment
from train.finetuning.batches import training_epoch
from train.finetuning.model import build_network, trainees
from train.photos import Photos, PhotoViews

SHARD = 10
"""Photos in a shard of the 2021 kind."""


class Rates(NamedTuple):
    """Seconds for one photo or view, by what is done with it.

    `extract`: the frozen network on an augmented view, as a cache is built; `network_train`, `network_val`: a step of training
    the head through the network with online augmentation, and its validation; `seed_write`, `seed_read`: unpooled float32 maps
    into ZLIB TFRecords, and a head trained for an epoch from them by Keras through tf.data.
    """

    photos: int
    extract: float
    network_train: float
    network_val: float
    seed_write: float
    seed_read: float


class Cost(NamedTuple):
    """Seconds: of a trial through the network, from the 2021 kind of cache, and from ours (a search of `trials` trials, start-up
    included, divided by them); and of building each cache with `copies` augmented copies."""

    epochs: int
    copies: int
    trials: int
    network_trial: float
    seed_trial: float
    own_trial: float
    seed_build: float
    own_build: float

    def seconds(self, trials: int) -> tuple[float, float, float]:
        """Through the network, from the 2021 kind of cache, from ours, building included."""
        return (
            trials * self.network_trial,
            self.seed_build + trials * self.seed_trial,
            self.own_build + trials * self.own_trial,
        )

    @property
    def break_even(self) -> int | None:
        """The first number of trials for which building our cache and searching on it takes less than going through the network;
        None where it never does."""
        saved = self.network_trial - self.own_trial
        return max(1, math.floor(self.own_build / saved) + 1) if saved > 0 else None


def cost_of(rates: Rates, own_trial: float, trials: int, images: dict[str, int], epochs: int, copies: int) -> Cost:
    """The cost from the measured rates: `images` are the photos by split."""
    train, val = images["train"], images["val"]
    views = (1 + copies) * train + val + images["test"]
    return Cost(
        epochs,
        copies,
        trials,
        epochs * (train * rates.network_train + val * rates.network_val),
        epochs * (train + val) * rates.seed_read,
        own_trial,
        views * (rates.extract + rates.seed_write),
        views * rates.extract,
    )


def time_own_trials(run: Run, leaders: list[Leader]) -> float:
    """Seconds for a trial of a search on the cache: these are trained once, with the workers of the search, start-up included."""
    sources = Caches(run).sources
    with tempfile.TemporaryDirectory(dir=make_folder(run.workdir / ".cost")) as compiled:  # nothing is compiled yet
        tasks = [
            Task(
                (each.config,),
                (None,),
                sources,
                Path(compiled).resolve(),
                each.config.epochs,
                run.search.objective,
                0,
                1,
            )
            for each in leaders
        ]
        started = time.monotonic()
        with open_executor(run.search.workers, run.workdir, environment(run), threads=True) as executor:
            for _ in executor.map(train_trials, tasks):
                pass
        return (time.monotonic() - started) / len(tasks)


def measure_rates(run: Run, leader: Leader, photos: int) -> Rates:
    """Measures on `photos` training photos, spread over all of them (fewer where there are fewer)."""
    index, batch = load_index(run), run.features.batch_size
    train = index.of_split("train")
    wanted = max(batch, min(photos, len(train)) // batch * batch)
    places = np.linspace(0, len(train) - 1, wanted).round().astype(int)
    part = DatasetIndex(train.iloc[places].reset_index(drop=True), index.class_names, index.root)
    sample = Photos(run, part, "train")
    pixels = sample.inputs(np.arange(len(sample)))
    extract = Extractor(for_workers(run).features)
    extraction = _per_photo(lambda: extract(pixels, sample.identities, "train", 1), len(sample))
    network_train, network_val = _through_the_network(run, leader, sample)
    write, read = _from_seed_cache(run, leader, part, pixels, len(index.class_names))
    return Rates(len(sample), extraction, network_train, network_val, write, read)


def _through_the_network(run: Run, leader: Leader, sample: Photos) -> tuple[float, float]:
    import keras

    cache, batch = cache_for(run), leader.config.batch_size
    policy = "mixed_bfloat16" if compute_dtype(run.features) == "bfloat16" else "float32"
    moments = feature_moments(cache.arrays("train")[0])
    network = build_network(run.features, leader.config.head, len(cache.class_names), moments, policy)  # type: ignore[arg-type]
    network.get_layer("extractor").trainable = False
    model = trainees(network, run.features, set()).on_photos
    model.compile(
        optimizer="adam",
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )
    views = PhotoViews(sample, Augmenter(resolve_policy(run.features.augmentation)), 0)
    seen = max(1, len(sample) // batch) * batch

    def train() -> None:
        model.fit(training_epoch(views, 0, batch, len(cache.class_names), 0), verbose=0, shuffle=False)

    def validate() -> None:
        model.predict(sample.inputs(np.arange(len(sample))), batch_size=batch, verbose=0)

    return _per_photo(train, seen), _per_photo(validate, len(sample))


def _from_seed_cache(run: Run, leader: Leader, part: DatasetIndex, pixels: Any, classes: int) -> tuple[float, float]:
    """Seconds a photo to write unpooled float32 maps as the 2021 notebooks did, and to train a head for an epoch from them."""
    import tensorflow as tf

    features = for_workers(run).features.model_copy(update={"pooling": "none", "dtype": "float32"})
    maps = Extractor(features)(pixels)
    labels = part.table["label"].to_numpy(np.int64)
    with tempfile.TemporaryDirectory(dir=make_folder(run.workdir / ".cost")) as folder:
        files = [str(Path(folder) / f"{number:05d}.tfrecord") for number in range(-(-len(maps) // SHARD))]

        def write() -> None:
            for number, file in enumerate(files):
                rows = slice(number * SHARD, (number + 1) * SHARD)
                with tf.io.TFRecordWriter(file, tf.io.TFRecordOptions(compression_type="ZLIB")) as writer:
                    for values, label in zip(maps[rows], labels[rows], strict=True):
                        writer.write(_example(values, int(label)).SerializeToString())

        written = _per_photo(write, len(maps))
        model = _pooled_head(leader, maps.shape[1:], classes)
        batches = _dataset(files, len(maps), maps.shape[1:], leader.config.batch_size)
        return written, _per_photo(lambda: model.fit(batches, verbose=0, shuffle=False), len(maps))


def _example(values: Any, label: int) -> Any:
    import tensorflow as tf

    return tf.train.Example(
        features=tf.train.Features(
            feature={
                "features": tf.train.Feature(bytes_list=tf.train.BytesList(value=[values.tobytes()])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
        )
    )


def _dataset(files: list[str], photos: int, shape: tuple[int, ...], batch: int) -> Any:
    """The best form of such a pipeline: files read in parallel, whole batches parsed at once, and prepared ahead."""
    import tensorflow as tf

    described = {"features": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def parse(records: Any) -> Any:
        parsed = tf.io.parse_example(records, described)
        return tf.reshape(tf.io.decode_raw(parsed["features"], tf.float32), (-1, *shape)), parsed["label"]

    records = tf.data.TFRecordDataset(files, "ZLIB", num_parallel_reads=tf.data.AUTOTUNE)
    batches = records.batch(batch).map(parse, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    return batches.apply(tf.data.experimental.assert_cardinality(-(-photos // batch)))


def _pooled_head(leader: Leader, shape: tuple[int, ...], classes: int) -> Any:
    import keras

    inputs = keras.Input(shape)
    moments = (np.zeros(shape[-1], np.float32), np.ones(shape[-1], np.float32))
    head = build_head(leader.config.head, (shape[-1],), classes, moments)
    model = keras.Model(inputs, head(keras.layers.GlobalAveragePooling2D()(inputs)))
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _per_photo(work: Callable[[], Any], photos: int) -> float:
    """Seconds a photo: the work is done once to warm up, then timed."""
    work()
    started = time.monotonic()
    work()
    return (time.monotonic() - started) / photos
