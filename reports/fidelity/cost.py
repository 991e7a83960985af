"""What a trial costs: through the network, from a cache of the kind that the 2021 notebooks used, and from ours.

Times are measured on a sample of the training photos and scaled to the whole: all three are proportional to the number of photos
and of epochs. Measured in a process of its own, whose Keras is on the backend of whole networks.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
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
"""Photos in a shard of the 2021 kind."""


class Rates(NamedTuple):
    """Seconds for one photo or view, by what is done with it.

    `decode`: a photo read and resized; `extract`: the frozen network on an augmented view, as a cache is built; `own_write`: a
    shard of ours written and digested; `network_train`, `network_val`: the head trained through the network with online
    augmentation, and validated; `seed_write`, `seed_train`, `seed_val`: unpooled float32 maps into ZLIB TFRecords, and a head
    trained and validated from them by Keras through tf.data.
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
    """Seconds: of a trial through the network, from the 2021 kind of cache, and from ours; of starting a search on ours (workers,
    features, compilation); and of building each cache with `copies` augmented copies. Ours was timed on `trials` trials."""

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
        """Through the network, from the 2021 kind of cache, from ours, building included."""
        return (
            trials * self.network_trial,
            self.seed_build + trials * self.seed_trial,
            self.own_build + self.own_start + trials * self.own_trial,
        )

    @property
    def break_even(self) -> int | None:
        """The first number of trials for which building our cache and searching on it takes less than going through the network;
        None where it never does."""
        saved = self.network_trial - self.own_trial
        return max(1, math.floor((self.own_build + self.own_start) / saved) + 1) if saved > 0 else None


def cost_of(
    rates: Rates, own: tuple[float, float], trials: int, images: dict[str, int], epochs: int, copies: int
) -> Cost:
    """The cost from the measured rates and `own`, the seconds of a trial of ours and of its start; `images` are the photos by
    split."""
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
    """Seconds for a trial on the cache, trained as a search's workers do, and for their start: these are trained twice, and what
    the first time takes longer is the start. Asking for trials and recording them is not in it."""
    configs = [leader.config for leader in leaders]
    with tempfile.TemporaryDirectory(dir=make_folder(run.workdir / ".cost")) as compiled:  # nothing is compiled yet
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
    """Measures on `photos` training photos, spread over all of them (fewer where there are fewer)."""
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
    """Seconds a view to write and digest a shard of ours."""
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
        batches = [training_epoch(views, n, batch, len(cache.class_names), 0) for n in range(passes)]
        model.fit(_joined(batches), verbose=0, shuffle=False)

    def validate(passes: int) -> None:
        model.predict(np.concatenate([clean] * passes), batch_size=batch, verbose=0)

    return _per_photo(train, len(sample) // batch * batch), _per_photo(validate, len(sample))


def _joined(epochs: list[Any]) -> Any:
    """The batches of several epochs as those of one, each prepared ahead as they are in a full run."""
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
    """Seconds a photo to write unpooled float32 maps as the 2021 notebooks did, and to train and validate a head from them."""
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


def _per_photo(work: Callable[[int], Any], photos: int) -> float:
    """Seconds a photo of work that goes over them so many times: what two more passes take, so that what each call takes anyway,
    and only a small sample would show, is not in it."""
    work(1)
    once, thrice = (min(_timed(work, passes) for _ in range(2)) for passes in (1, 3))
    return max(thrice - once, 0.0) / (2 * photos)


def _timed(work: Callable[[int], Any], passes: int) -> float:
    started = time.monotonic()
    work(passes)
    return time.monotonic() - started
