"""Keras's image layers applied to one photo at a time, with all draws determined by a key.

A Keras layer draws for a whole batch from a stateful generator. Here the state of each of its generators is an input of a
compiled function of one photo, so that a view does not depend on other photos or earlier draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features.runtime.errors import UsageError
from features.runtime.workers.engine import compiled

EAGER_ON_JAX = ("RandomCrop", "RandomElasticTransform")
"""Layers that JAX cannot compile, because shapes inside them depend on a draw."""


class LayerView:
    """One Keras layer as a thread-safe function `view(photo, states(key))`.

    A photo is (1, h, w, 3) float32 in 0…255, and so is its view, unless the layer crops or resizes. The draws are those of the
    Keras layer for a batch of this one photo, with `states(key)` as the states of its generators. TensorFlow and JAX draw
    different numbers from the same state.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], occurrence: int = 0) -> None:
        import keras

        self.name = name
        self._place = f"{name}/{occurrence}"
        try:
            self.layer = getattr(keras.layers, name)(**arguments, dtype="float32")
        except (ValueError, TypeError, NotImplementedError) as error:
            raise UsageError(f"Keras rejects the layer {name} with {dict(arguments)}: {error}") from error
        _count_at_once(self.layer)
        self._generators = [v for v in self.layer.variables if v.name == "seed_generator_state"]
        view = self._rand_augment() if name == "RandAugment" else self._whole_layer
        self.compiles = keras.backend.backend() != "jax" or name not in EAGER_ON_JAX
        self.view: Callable[[Any, Any], Any] = compiled(view) if self.compiles else view

    def states(self, key: str) -> npt.NDArray[np.int64]:
        """(generators, 2) int64: the states of the layer's generators before it draws for this key."""
        words = hashlib.shake_256(f"{key}/{self._place}".encode()).digest(4 * len(self._generators))
        seeds = np.frombuffer(words, np.uint32).astype(np.int64) >> 1
        return np.stack([seeds, np.zeros_like(seeds)], 1)

    def _whole_layer(self, photo: Any, states: Any) -> Any:
        import keras

        mapping = [
            (generator, keras.ops.cast(states[n], generator.dtype)) for n, generator in enumerate(self._generators)
        ]
        with keras.StatelessScope(state_mapping=mapping):
            return self.layer(photo, training=True)

    def _rand_augment(self) -> Callable[[Any, Any], Any]:
        """Equals Keras's RandAugment on a batch of one photo, but computes only the operations that were drawn.

        Keras draws the indices of the operations, then the parameters of all operations in turn. Here, the parameters of each
        drawn operation are drawn from the generator state that Keras would have at that point.
        """
        import keras

        layer, generator = self.layer, self.layer.generator
        own = next(number for number, state in enumerate(self._generators) if state is generator.state)
        operations = [getattr(layer, name) for name in layer._AUGMENT_LAYERS]
        turns = _turns(generator, operations)

        def scope(seed: Any, turn: int) -> Any:
            state = keras.ops.stack([seed, keras.ops.convert_to_tensor(turn, seed.dtype)])
            return keras.StatelessScope(state_mapping=[(generator.state, state)])

        def branch(number: int) -> Callable[[Any, Any], Any]:
            def operate(photo: Any, seed: Any) -> Any:
                with scope(seed, turns[number]):
                    drawn = operations[number].get_random_transformation(photo, seed=generator)
                    return keras.ops.reshape(operations[number].transform_images(photo, drawn), photo.shape)

            return operate

        branches = [branch(number) for number in range(len(operations))]

        def view(photo: Any, states: Any) -> Any:
            photo = keras.ops.convert_to_tensor(photo, "float32")
            seed = keras.ops.cast(states[own, 0], generator.state.dtype)
            with scope(seed, 0):
                chosen = keras.random.randint((layer.num_ops,), 0, len(operations), seed=generator)
            return keras.ops.fori_loop(
                0, layer.num_ops, lambda number, seen: keras.ops.switch(chosen[number], branches, seen, seed), photo
            )

        return view


def in_turn(layers: Sequence[LayerView]) -> Callable[[Any, str], Any]:
    """The layers in sequence as a function of (photo, key), compiled into one program if all of them can be compiled."""

    def whole(photo: Any, states: Any) -> Any:
        for layer, state in zip(layers, states, strict=True):
            photo = layer.view(photo, state)
        return photo

    function = compiled(whole) if all(layer.compiles for layer in layers) else whole
    return lambda photo, key: function(photo, tuple(layer.states(key) for layer in layers))


def _turns(generator: Any, operations: Sequence[Any]) -> list[int]:
    """The generator's counter when each operation draws its parameters; the draw of the operations themselves comes first."""
    photo = np.zeros((1, 8, 8, 3), np.float32)
    turns, turn = [], 1
    for operation in operations:
        turns.append(turn)
        before = int(np.asarray(generator.state)[1])
        operation.get_random_transformation(photo, seed=generator)
        turn += int(np.asarray(generator.state)[1]) - before
    return turns


def _count_at_once(layer: Any) -> None:
    """On JAX, replaces the histogram of Keras's Equalization, which counts each of the 256 values separately and takes 20 s to
    compile, by a single bincount."""
    import keras

    equalization = getattr(layer, "equalization", layer)
    if keras.backend.backend() != "jax" or not isinstance(equalization, keras.layers.Equalization):
        return

    def histogram(values: Any, value_range: tuple[float, float], nbins: int) -> Any:
        import jax.numpy as jnp

        low, high = map(jnp.float32, value_range)
        scaled = (jnp.asarray(values, jnp.float32) - low) * (nbins - 1) / (high - low)
        return jnp.bincount(jnp.clip(scaled.astype(jnp.int32), 0, nbins - 1).ravel(), length=nbins).astype(jnp.int32)

    equalization._custom_histogram_fixed_width = histogram
