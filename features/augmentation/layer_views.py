"""Keras's image layers applied to one photo at a time, with all their draws decided by a key.

A Keras layer draws for a whole batch from a generator that remembers what it drew before. Here the state of every generator
of the layer is an input of a compiled function of one photo, so that a view does not know of other photos or earlier draws.
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
"""Layers that JAX cannot compile: the shapes inside them depend on a draw."""


class LayerView:
    """One Keras layer as a function `view(photo, states(key))`, safe to call from several threads.

    A photo is (1, h, w, 3) float32 in 0…255, and so is its view, unless the layer crops or resizes. The draws are those that
    Keras's own layer makes for a batch of this one photo when the states of its generators are `states(key)`. TensorFlow and
    JAX draw different numbers from the same state.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], occurrence: int = 0) -> None:
        import keras

        self.name = name
        self._place = f"{name}/{occurrence}"
        try:
            self.layer = getattr(keras.layers, name)(**arguments, dtype="float32")
        except (ValueError, TypeError, NotImplementedError) as error:
            raise UsageError(f"Keras refuses the layer {name} with {dict(arguments)}: {error}") from error
        _count_at_once(self.layer)
        self._generators = [v for v in self.layer.variables if v.name == "seed_generator_state"]
        view = self._rand_augment() if name == "RandAugment" else self._whole_layer
        self.compiles = keras.backend.backend() != "jax" or name not in EAGER_ON_JAX
        self.view: Callable[[Any, Any], Any] = compiled(view) if self.compiles else view

    def states(self, key: str) -> npt.NDArray[np.int64]:
        """(generators, 2) int64: what the generators of the layer hold before it draws for this key."""
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
        """What Keras's RandAugment does to a batch of one photo, computing the operations that were drawn and no others.

        Keras draws the numbers of the operations, then the parameters of every operation in turn; each operation's parameters
        are drawn here from the state that its turn would find.
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
    """The layers one after the other as a function of (photo, key), compiled as one where all of them can be."""

    def whole(photo: Any, states: Any) -> Any:
        for layer, state in zip(layers, states, strict=True):
            photo = layer.view(photo, state)
        return photo

    function = compiled(whole) if all(layer.compiles for layer in layers) else whole
    return lambda photo, key: function(photo, tuple(layer.states(key) for layer in layers))


def _turns(generator: Any, operations: Sequence[Any]) -> list[int]:
    """The count that the generator stands at when each operation draws; the draw of the operations themselves was the first."""
    photo = np.zeros((1, 8, 8, 3), np.float32)
    turns, turn = [], 1
    for operation in operations:
        turns.append(turn)
        before = int(np.asarray(generator.state)[1])
        operation.get_random_transformation(photo, seed=generator)
        turn += int(np.asarray(generator.state)[1]) - before
    return turns


def _count_at_once(layer: Any) -> None:
    """On JAX, Keras's Equalization counts each of the 256 values by itself, which takes 20 s to compile: counts them at once."""
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
