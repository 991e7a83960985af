"""The cost of a trial: through the network, from a cache like that of the 2021 notebooks, and from ours.

Times are measured on a sample of the training photos and extrapolated: all three are proportional to the numbers of photos and
epochs. `measure_rates` runs in its own process, with Keras on the backend of whole networks.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from features.audit.moments import feature_moments
from features.augmentation.augment import Augmenter, resolve_policy
from features.augmentation.policies import augmentation_of
from features.backbones.extract import Extractor
from features.backbones.table import compute_dtype
from features.cache.feature_cache import cache_for
from features.cache.keys import for_workers
from features.cache.shards import Shard, write_shard
from features.dataset.index import DatasetIndex, load_index
from features.runtime.atomic import file_sha256, make_folder
from features.runtime.workers.engine import quiet, start_keras
from features.runtime.workers.executors import open_executor
from reports.config import Run
from search.engine import environment
from search.heads import build_head
from search.leaderboard import Leader
from search.objectives import open_objective
from train.finetuning.batches import training_epoch
from train.finetuning.heads import space_head
from train.finetuning.model import Policy, build_network, features_of, trainees
from train.photos import Photos, PhotoViews

SHARD = 10
"""Photos per shard of the 2021 cache."""


class Rates(NamedTuple):
    """Seconds per photo or view, by operation.

    `decode`: reading and resizing a photo; `extract`: the frozen network on an augmented view, as in building a cache;
    `own_write`: writing and hashing our shards; `network_train`, `network_val`: training the head through the network with online
    augmentation, and validating it; `seed_write`, `seed_train`, `seed_val`: writing unpooled float32 maps as ZLIB TFRecords, and
    training and validating a head on them with Keras and tf.data.
    """

    photos: int
    decode: float
    extract: float
    own_write: float
    network_train: float
    network_val: float
    seed_write: float
    seed_train: float
    seed_val: float


class Cost(NamedTuple):
    """Seconds for a trial through the network, from the 2021 cache, and from ours; for starting a search on ours (workers,
    features, compilation); and for building each cache with `copies` augmented copies. Ours was timed on `trials` trials."""

    epochs: int
    copies: int
    trials: int
    network_trial: float
    seed_trial: float
    own_trial: float
    own_start: float
    seed_build: float
    own_build: float

    def seconds(self, trials: int) -> tuple[float, float, float]:
        """Seconds for `trials` trials through the network, from the 2021 cache, and from ours, including building the cache."""
        return (
            trials * self.network_trial,
            self.seed_build + trials * self.seed_trial,
            self.own_build + self.own_start + trials * self.own_trial,
        )

    @property
    def break_even(self) -> int | None:
        """The smallest number of trials for which building our cache and searching on it is faster than training through the
        network; None if it never is."""
        saved = self.network_trial - self.own_trial
        return max(1, math.floor((self.own_build + self.own_start) / saved) + 1) if saved > 0 else None


def cost_of(
    rates: Rates, own: tuple[float, float], trials: int, images: dict[str, int], epochs: int, copies: int
) -> Cost:
    """The cost from the measured rates and `own`, the seconds for a trial on our cache and for the start; `images` is the number
    of photos by split."""
    train, val = images["train"], images["val"]
    photos = train + val + images["test"]
    views = photos + copies * train
    return Cost(
        epochs,
        copies,
        trials,
        (train + val) * rates.decode + epochs * (train * rates.network_train + val * rates.network_val),
        epochs * (train * rates.seed_train + val * rates.seed_val),
        *own,
        photos * rates.decode + views * (rates.extract + rates.seed_write),
        photos * rates.decode + views * (rates.extract + rates.own_write),
    )


def time_own_trials(run: Run, leaders: list[Leader]) -> tuple[float, float]:
    """Seconds for a trial on the cache, trained like in a search's workers, and for their start: the leaders are trained twice,
    and the extra time of the first pass is the start. Sampling and recording trials is not included."""
    configs = [leader.config for leader in leaders]
    with tempfile.TemporaryDirectory(dir=make_folder(run.workdir / ".cost")) as compiled:  # an empty compilation cache
        objective = open_objective(run)
        tasks = [
            replace(objective.task([configs[place] for place in piece]), compiled=Path(compiled).resolve())
            for piece in objective.pieces(configs)
        ]
        started = time.monotonic()
        with open_executor(run.search.workers, run.workdir, environment(run), threads=True) as executor:
            for _ in objective.run_tasks(executor, tasks):
                pass
            once = time.monotonic()
            for _ in objective.run_tasks(executor, tasks):
                pass
            again = time.monotonic() - once
    return again / len(configs), max(0.0, once - started - again)


def measure_rates(run: Run, leader: Leader, photos: int) -> Rates:
    """Measures the rates on `photos` evenly spaced training photos, in whole batches (fewer if there are fewer)."""
    start_keras(run.backend)
    index, batch = load_index(run), run.features.batch_size
    train = index.of_split("train")
    wanted = max(batch, min(photos, len(train)) // batch * batch)
    places = np.linspace(0, len(train) - 1, wanted).round().astype(int)
    part = DatasetIndex(train.iloc[places].reset_index(drop=True), index.class_names, index.root)
    sample = Photos(run, part, "train")
    started = time.monotonic()
    pixels = Photos(run, part, "train").inputs(np.arange(wanted))
    decode = (time.monotonic() - started) / wanted
    extract = Extractor(for_workers(run).features).project(cache_for(run).projections)

    def compute(passes: int) -> None:
        for copy in range(1, passes + 1):
            extract(pixels, sample.identities, "train", copy)

    extraction = _per_photo(compute, wanted)
    network = _through_the_network(run, leader, sample)
    seed = _from_seed_cache(run, leader, part, pixels, len(index.class_names))
    return Rates(wanted, decode, extraction, _own_writing(run, extract(pixels)), *network, *seed)


def _own_writing(run: Run, features: Any) -> float:
    """Seconds per view to write and hash one of our shards."""
    rows = np.arange(len(features))
    shard = Shard(features.astype(run.features.dtype), rows, rows)
    with tempfile.TemporaryDirectory(dir=make_folder(run.workdir / ".cost")) as folder:
        path = Path(folder) / "train.tfrecord"

        def write(passes: int) -> None:
            for _ in range(passes):
                write_shard(path, shard)
                file_sha256(path)

        return _per_photo(write, len(features))


def _through_the_network(run: Run, leader: Leader, sample: Photos) -> tuple[float, float]:
    import keras

    cache, batch = cache_for(run), min(leader.config.batch_size, len(sample))
    policy: Policy = "mixed_bfloat16" if compute_dtype(run.features) == "bfloat16" else "float32"
    config, parts = leader.config, leader.config.features.parts
    moments = feature_moments(cache.arrays("train", parts=parts)[0], cache.part_widths(parts))
    features = features_of(run.features, config)
    network = build_network(
        features, space_head(config.head, len(cache.class_names), moments), policy, cache.projections
    )
    network.get_layer("extractor").trainable = False
    model = trainees(network, run.features, set()).on_photos
    model.compile(
        optimizer="adam",
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )
    views = PhotoViews(sample, Augmenter(resolve_policy(augmentation_of(run.features))), 0)
    clean = sample.inputs(np.arange(len(sample)))

    def train(passes: int) -> None:
        with ExitStack() as epochs:
            classes = len(cache.class_names)
            batches = [epochs.enter_context(training_epoch(views, n, batch, classes, 0)) for n in range(passes)]
            model.fit(_joined(batches), verbose=0, shuffle=False)

    def validate(passes: int) -> None:
        model.predict(np.concatenate([clean] * passes), batch_size=batch, verbose=0)

    return _per_photo(train, len(sample) // batch * batch), _per_photo(validate, len(sample))


def _joined(epochs: list[Any]) -> Any:
    """The batches of several epochs as a single dataset, prefetched like in a full run."""
    import keras

    class Joined(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(workers=1, use_multiprocessing=False)

        def __len__(self) -> int:
            return sum(map(len, epochs))

        def __getitem__(self, number: int) -> Any:
            return epochs[number // len(epochs[0])][number % len(epochs[0])]

    return Joined()


def _from_seed_cache(
    run: Run, leader: Leader, part: DatasetIndex, pixels: Any, classes: int
) -> tuple[float, float, float]:
    """Seconds per photo to write unpooled float32 maps like the 2021 notebooks, and to train and validate a head on them."""
    with quiet():
        import tensorflow as tf

    features = for_workers(run).features.model_copy(update={"pooling": "none", "dtype": "float32"})
    maps = Extractor(features)(pixels)
    labels = part.table["label"].to_numpy(np.int64)
    with tempfile.TemporaryDirectory(dir=make_folder(run.workdir / ".cost")) as folder:
        files = [str(Path(folder) / f"{number:05d}.tfrecord") for number in range(-(-len(maps) // SHARD))]

        def write(passes: int) -> None:
            for number, file in enumerate(files * passes):
                number %= len(files)
                rows = slice(number * SHARD, (number + 1) * SHARD)
                with tf.io.TFRecordWriter(file, tf.io.TFRecordOptions(compression_type="ZLIB")) as writer:
                    for values, label in zip(maps[rows], labels[rows], strict=True):
                        writer.write(_example(values, int(label)).SerializeToString())

        written = _per_photo(write, len(maps))
        model = _pooled_head(leader, maps.shape[1:], classes)
        batch = min(leader.config.batch_size, len(maps))

        def batches(passes: int) -> Any:
            return _dataset(files * passes, passes * len(maps), maps.shape[1:], batch)

        train = _per_photo(lambda passes: model.fit(batches(passes), verbose=0, shuffle=False), len(maps))
        return written, train, _per_photo(lambda passes: model.evaluate(batches(passes), verbose=0), len(maps))


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
    """An optimised version of the notebooks' pipeline: parallel reads, batched parsing, prefetching."""
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


def _per_photo(work: Callable[[int], Any], photos: int) -> float:
    """Seconds per photo of `work(passes)`, from the difference between three passes and one, which excludes the fixed overhead of
    a call."""
    work(1)
    once, thrice = (min(_timed(work, passes) for _ in range(2)) for passes in (1, 3))
    return max(thrice - once, 0.0) / (2 * photos)


def _timed(work: Callable[[int], Any], passes: int) -> float:
    started = time.monotonic()
    work(passes)
    return time.monotonic() - started
