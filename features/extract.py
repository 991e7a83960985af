"""A frozen backbone over batches of images."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from features.augment import apply_transforms
from features.backbones import compute_dtype
from features.config import FeaturesConfig
from features.networks import build_extractor


class Extractor:
    """Photos to features, in batches of one size (the last is padded), so that features do not depend on the batch."""

    def __init__(self, config: FeaturesConfig) -> None:
        import keras

        self._batch_size = config.batch_size
        bfloat16 = compute_dtype(config) == "bfloat16"
        self._model = build_extractor(config, "mixed_bfloat16" if bfloat16 else "float32")
        self._augment: Any = apply_transforms
        self._run: Any = self._model
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            self._run = tf.function(self._model, reduce_retracing=True)  # no XLA: it is slow for convolutions on a CPU
            self._augment = tf.function(apply_transforms, reduce_retracing=True)
        elif keras.backend.backend() == "jax":
            import jax

            model = self._model
            variables = [variable.value for variable in model.non_trainable_variables]
            forward = jax.jit(lambda state, photos: model.stateless_call([], state, photos, training=False)[0])
            self._run = lambda photos: forward(variables, photos)
            self._augment = jax.jit(apply_transforms)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one image's features."""
        return tuple(self._model.output.shape[1:])

    def __call__(
        self, images: npt.NDArray[np.uint8], transforms: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Images (n, h, w, 3) uint8, augmented by transforms (n, 8) where given, to features (n, *feature_shape) float32."""
        size = self._batch_size
        features = np.empty((len(images), *self.feature_shape), np.float32)
        for start in range(0, len(images), size):
            rows = slice(start, min(start + size, len(images)))
            count = rows.stop - start
            photos: Any = np.zeros((size, *images.shape[1:]), np.float32)
            photos[:count] = images[rows]
            if transforms is not None:
                padded = np.tile(np.array([1, 0, 0, 0, 1, 0, 0, 0], np.float32), (size, 1))
                padded[:count] = transforms[rows]
                photos = self._augment(photos, padded)
            features[rows] = np.asarray(self._run(photos))[:count]
        return features


@lru_cache(maxsize=1)
def extractor(config_json: str) -> Extractor:
    """The extractor of a configuration (as JSON, which can be a key), built once in a process."""
    return Extractor(FeaturesConfig.model_validate_json(config_json))
