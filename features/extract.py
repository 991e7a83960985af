"""A frozen backbone over batches of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from features.augment import Augmenter, resolve_policy
from features.backbones import compute_dtype, image_size
from features.config import FeaturesConfig
from features.networks import build_extractor
from features.policies import augmentation_of


class Extractor:
    """Photos to features, in batches of one size (the last is padded), so that features do not depend on the batch."""

    def __init__(self, config: FeaturesConfig) -> None:
        import keras

        self._batch_size = config.batch_size
        bfloat16 = compute_dtype(config) == "bfloat16"
        self._model = build_extractor(config, "mixed_bfloat16" if bfloat16 else "float32")
        self._augment = Augmenter(resolve_policy(augmentation_of(config), image_size=image_size(config)))
        self._seed = config.seed
        self._run: Any = self._model
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            self._run = tf.function(self._model, reduce_retracing=True)  # no XLA: it is slow for convolutions on a CPU
        elif keras.backend.backend() == "jax":
            import jax

            model = self._model
            variables = [variable.value for variable in model.non_trainable_variables]
            forward = jax.jit(lambda state, photos: model.stateless_call([], state, photos, training=False)[0])
            self._run = lambda photos: forward(variables, photos)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one image's features."""
        return tuple(self._model.output.shape[1:])

    def __call__(
        self,
        images: npt.NDArray[np.uint8],
        identities: Sequence[str] | None = None,
        split: str = "train",
        copy: int = 0,
    ) -> npt.NDArray[np.float32]:
        """Images (n, h, w, 3) uint8 to features (n, *feature_shape) float32.

        With `identities` (the images' sha256), of the views that the configuration's policy and seed give as this copy of
        the split; without, of the images as they are.
        """
        size = self._batch_size
        features = np.empty((len(images), *self.feature_shape), np.float32)
        for start in range(0, len(images), size):
            rows = slice(start, min(start + size, len(images)))
            count = rows.stop - start
            photos: Any = np.zeros((size, *images.shape[1:]), np.float32)
            photos[:count] = images[rows]
            if identities is not None:
                padded = [*identities[rows], *[None] * (size - count)]
                photos = self._augment(photos, padded, self._seed, split, copy)
            features[rows] = np.asarray(self._run(photos))[:count]
        return features


@lru_cache(maxsize=1)
def extractor(config_json: str) -> Extractor:
    """The extractor of a configuration (as JSON, which can be a key), built once in a process."""
    return Extractor(FeaturesConfig.model_validate_json(config_json))
