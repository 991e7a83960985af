"""Runs a frozen backbone over batches of photos: maps, and the features pooled from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from features.augmentation.augment import Augmenter, resolve_policy
from features.augmentation.policies import augmentation_of
from features.backbones.networks import build_maps
from features.backbones.pooling_layers import build_pooling
from features.backbones.projection import Projection
from features.backbones.table import compute_dtype, image_size, pooling
from features.config import FeaturesConfig
from features.pooling import Layout, layout

Images = npt.NDArray[np.uint8]


class Extractor:
    """Photos to features, in batches of constant size (the last is padded), so that features do not depend on the batch.

    If the pooling has covariances, call `project` first.
    """

    def __init__(self, config: FeaturesConfig) -> None:
        self._batch_size = config.batch_size
        self._pooling = pooling(config)
        model = build_maps(config, "mixed_bfloat16" if compute_dtype(config) == "bfloat16" else "float32")
        self._shapes = [tuple(output.shape[1:]) for output in model.outputs]
        self._maps = _compiled(model)
        self._augment = Augmenter(resolve_policy(augmentation_of(config), image_size=image_size(config)))
        self._seed = config.seed
        self._projections: tuple[Projection, ...] | None = None
        self._pool: Any = None

    @property
    def parts(self) -> Layout:
        """The parts of one photo's features, with the number of columns of each."""
        return layout(self._pooling, [shape[-1] for shape in self._shapes])

    def project(self, projections: tuple[Projection, ...]) -> Extractor:
        """Sets the projections for covariance pooling, one per map. Returns self."""
        if projections != self._projections:
            model = build_pooling(self._pooling, self._shapes, projections)
            self._projections, self._pool = projections, (_compiled(model), tuple(model.output.shape[1:]))
        return self

    def maps(self, images: Images) -> Iterator[tuple[npt.NDArray[np.float32], ...]]:
        """The maps of photos (n, h, w, 3) uint8, batch by batch: (batch, h, w, channels) float32 per cut."""
        for rows, photos in self._batches(images, None, "train", 0):
            yield tuple(np.asarray(x, np.float32)[: rows.stop - rows.start] for x in _listed(self._maps(photos)))

    def __call__(
        self,
        images: Images,
        identities: Sequence[str] | None = None,
        split: str = "train",
        copy: int = 0,
    ) -> npt.NDArray[np.float32]:
        """Photos (n, h, w, 3) uint8 to features (n, *feature_shape) float32.

        With `identities` (the photos' sha256), the photos are augmented with the configured policy and seed, as copy `copy` of
        the split; without, they are used as they are.
        """
        if self._pool is None:
            self.project(())
        pool, shape = self._pool
        features = np.empty((len(images), *shape), np.float32)
        for rows, photos in self._batches(images, identities, split, copy):
            features[rows] = np.asarray(pool(self._maps(photos)))[: rows.stop - rows.start]
        return features

    def _batches(
        self, images: Images, identities: Sequence[str] | None, split: str, copy: int
    ) -> Iterator[tuple[slice, Any]]:
        """Row slices with the photos or their views (batch, h, w, 3) float32, padded with black photos."""
        size = self._batch_size
        for start in range(0, len(images), size):
            rows = slice(start, min(start + size, len(images)))
            count = rows.stop - rows.start
            photos: Any = np.zeros((size, *images.shape[1:]), np.float32)
            photos[:count] = images[rows]
            if identities is not None:
                padded = [*identities[rows], *[None] * (size - count)]
                photos = self._augment(photos, padded, self._seed, split, copy)
            yield rows, photos


def _compiled(model: Any) -> Callable[[Any], Any]:
    """The model in inference mode, compiled by Keras's backend."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Without XLA, whose convolutions are slow on a CPU.
        return tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)  # type: ignore[no-any-return]
    if keras.backend.backend() == "jax":
        import jax

        trainable, fixed = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
        forward = jax.jit(lambda state, inputs: model.stateless_call(*state, inputs, training=False)[0])
        return lambda inputs: forward((trainable, fixed), inputs)
    return model  # type: ignore[no-any-return]


def _listed(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


@lru_cache(maxsize=1)
def extractor(config_json: str) -> Extractor:
    """The extractor of a configuration (JSON, which is hashable), built once per process."""
    return Extractor(FeaturesConfig.model_validate_json(config_json))
