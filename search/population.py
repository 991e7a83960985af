"""The compiled trainer: one epoch of a head is one program (a `lax.scan` over its steps) on features that stay in memory.

A program is compiled once for a structure (the shapes); everything else is data to it: learning rates, dropout rate, L2, label
smoothing, weight decay, which copy of an image is seen, and in which order. Trials of one structure share the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from features.views import order_of_epoch
from search.heads import HeadConfig, build_head, head_weights
from search.optimizers import Optimizer
from search.trial import EpochMetrics, Objective, TrialConfig, is_better


class Structure(NamedTuple):
    """What a compiled program depends on; two trials with equal structures run the same program."""

    head: HeadConfig
    optimizer: Optimizer
    batch_size: int


def structure_of(config: TrialConfig) -> Structure:
    """The structure of a trial: its configuration with everything that is data set to a standard value."""
    head, optimizer = config.head, config.optimizer
    head = head.model_copy(update={"dropout": 0.5 if head.dropout else 0.0, "l2": 0.0, "label_smoothing": 0.0})
    if optimizer.decay:
        optimizer = optimizer.model_copy(update={"weight_decay": 0.0})
    return Structure(head, optimizer, config.batch_size)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Features in memory: train (copies + 1, n, *feature_shape), val (m, *feature_shape), labels int32, and the moments of
    the clean training features."""

    train: Any
    train_labels: Any
    val: Any
    val_labels: Any
    classes: int
    moments: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


@dataclass
class TrialState:
    """A trial between two rungs, as plain arrays: it can move to another worker and go on there."""

    trainable: list[Any]
    non_trainable: list[Any]
    optimizer: list[Any]
    curves: list[EpochMetrics] = field(default_factory=list)
    best_epoch: int = 0
    best_trainable: list[Any] = field(default_factory=list)
    best_non_trainable: list[Any] = field(default_factory=list)
    failure: str | None = None


class Program:
    """A structure's model and optimiser, and its compiled epoch and evaluation, on one data set."""

    def __init__(self, structure: Structure, data: TrainingData) -> None:
        import jax

        self.structure = structure
        self._data = data
        self.model = build_head(
            structure.head, data.val.shape[1:], data.classes, data.moments, dropout_layer=_dropout_layer()
        )
        self.optimizer = structure.optimizer.build()
        self.optimizer.build(self.model.trainable_variables)
        self._rate_at = _position(self.optimizer.variables, self.optimizer._learning_rate)
        self._dropouts = [
            _position(self.model.non_trainable_variables, layer.rate)
            for layer in self.model.layers
            if layer.name.startswith("dropout")
        ]
        self._seeds = [n for n, v in enumerate(self.model.non_trainable_variables) if v.name == "seed_generator_state"]
        self._epoch = jax.jit(self._train)
        self._evaluate = jax.jit(self._measure)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; the images left over are others in every epoch."""
        return max(1, len(self._data.train_labels) // self.structure.batch_size)

    def start(self, config: TrialConfig) -> TrialState:
        """The state before the first epoch: weights drawn from the trial's seed."""
        data = self._data
        shape = data.val.shape[1:]
        model = build_head(self.structure.head, shape, data.classes, data.moments, _dropout_layer(), config.seed)
        non_trainable: list[Any] = [np.asarray(variable) for variable in model.non_trainable_variables]
        for position in self._dropouts:
            non_trainable[position] = np.float32(config.head.dropout)
        for order, position in enumerate(self._seeds):
            non_trainable[position] = np.array([config.seed, order], np.uint32)
        return TrialState(
            [np.asarray(variable) for variable in model.trainable_variables],
            non_trainable,
            [np.zeros(variable.shape, variable.dtype) for variable in self.optimizer.variables],
        )

    def train(self, config: TrialConfig, state: TrialState, until: int, objective: Objective, seed: int) -> TrialState:
        """Trains up to `until` epochs. `seed` is the search's: batches and views depend on it and the epoch alone.

        A loss that is not finite ends the trial with `failure` set.
        """
        images = len(self._data.train_labels)
        for epoch in range(len(state.curves), until):
            val_losses = [metrics.val_loss for metrics in state.curves]
            rates = config.schedule.rates_of_epoch(epoch, self.steps_per_epoch, config.epochs, val_losses)
            inputs = {
                "rates": rates,
                "order": _batches(seed, epoch, images, self.structure.batch_size, self.steps_per_epoch),
                "copies": config.views.of_epoch(epoch, images, seed),
                "l2": np.float32(config.head.l2),
                "smoothing": np.float32(config.head.label_smoothing),
                "decay": np.float32(config.optimizer.decay),
            }
            carry = (state.trainable, state.non_trainable, state.optimizer)
            data = self._data
            (state.trainable, state.non_trainable, state.optimizer), losses, hits = self._epoch(
                carry, inputs, data.train, data.train_labels
            )
            measured = self._evaluate(state.trainable, state.non_trainable, data.val, data.val_labels)
            loss, val_loss, accuracy, top5 = float(losses), *map(float, measured)
            if not np.isfinite([loss, val_loss]).all():
                state.failure = f"the loss is not finite after epoch {epoch + 1} (learning rate {rates[-1]:.3g})"
                return state
            metrics = EpochMetrics(epoch + 1, loss, float(hits), val_loss, accuracy, top5, float(rates[-1]))
            state.curves.append(metrics)
            if state.best_epoch == 0 or is_better(
                objective, getattr(metrics, objective), getattr(state.curves[state.best_epoch - 1], objective)
            ):
                state.best_epoch = epoch + 1
                state.best_trainable, state.best_non_trainable = state.trainable, state.non_trainable
        return state

    def best_weights(self, state: TrialState) -> dict[str, npt.NDArray[np.float32]]:
        """The weights of the best epoch by `<layer>.<weight>`, as a head of stock layers has them."""
        for variables, values in (
            (self.model.trainable_variables, state.best_trainable),
            (self.model.non_trainable_variables, state.best_non_trainable),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        dropped = tuple(layer.name for layer in self.model.layers if layer.name.startswith("dropout"))
        return {
            name: value for name, value in head_weights(self.model).items() if not name.startswith(dropped or ("\0",))
        }

    def _train(self, carry: Any, inputs: Mapping[str, Any], features: Any, labels: Any) -> Any:
        import jax
        import jax.numpy as jnp

        kernels = [n for n, variable in enumerate(self.model.trainable_variables) if variable.name == "kernel"]
        classes = self._data.classes

        def loss_of(trainable: Any, non_trainable: Any, x: Any, y: Any) -> Any:
            logits, non_trainable = self.model.stateless_call(trainable, non_trainable, x, training=True)
            wanted = jax.nn.one_hot(y, classes) * (1 - inputs["smoothing"]) + inputs["smoothing"] / classes
            entropy = -(wanted * jax.nn.log_softmax(logits)).sum(-1).mean()
            penalty = inputs["l2"] * sum(jnp.square(trainable[n]).sum() for n in kernels)
            return entropy + penalty, (non_trainable, entropy, (logits.argmax(-1) == y).mean())

        def step(carry: Any, batch: Any) -> Any:
            trainable, non_trainable, optimizer = carry
            rows, rate = batch
            x = features[inputs["copies"][rows], rows].astype(jnp.float32)
            gradient = jax.grad(loss_of, has_aux=True)
            gradients, (non_trainable, entropy, hits) = gradient(trainable, non_trainable, x, labels[rows])
            trainable = [weight * (1 - rate * inputs["decay"]) for weight in trainable]
            optimizer = [rate if n == self._rate_at else value for n, value in enumerate(optimizer)]
            trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
            return (trainable, non_trainable, optimizer), (entropy, hits)

        carry, (losses, hits) = jax.lax.scan(step, carry, (inputs["order"], inputs["rates"]))
        return carry, losses.mean(), hits.mean()

    def _measure(self, trainable: Any, non_trainable: Any, features: Any, labels: Any) -> Any:
        """Validation loss, accuracy and top-5 accuracy."""
        import jax
        import jax.numpy as jnp

        logits, _ = self.model.stateless_call(trainable, non_trainable, features.astype(jnp.float32), training=False)
        rows = jnp.arange(len(labels))
        loss = -jax.nn.log_softmax(logits)[rows, labels].mean()
        better = (logits > logits[rows, labels][:, None]).sum(-1)
        return loss, (logits.argmax(-1) == labels).mean(), (better < 5).mean()


def _batches(seed: int, epoch: int, images: int, batch_size: int, steps: int) -> npt.NDArray[np.int32]:
    """The images of every step: (steps, batch_size) int32, a pure function of the search's seed and the epoch."""
    return np.resize(order_of_epoch(epoch, images, seed), (steps, batch_size)).astype(np.int32)


def _position(variables: list[Any], wanted: Any) -> int:
    return next(position for position, variable in enumerate(variables) if variable is wanted)


@lru_cache(maxsize=1)
def _dropout_class() -> Any:
    import keras

    class DataDropout(keras.layers.Layer):  # type: ignore[misc]
        """Dropout whose rate is a variable, so that it is data to the compiled program."""

        def __init__(self, name: str) -> None:
            super().__init__(name=name)
            self.seeds = keras.random.SeedGenerator(0)
            self.rate = self.add_weight(shape=(), initializer="zeros", trainable=False, name="rate")

        def call(self, inputs: Any, training: bool = False) -> Any:
            if not training:
                return inputs
            kept = keras.random.uniform(keras.ops.shape(inputs), seed=self.seeds) >= self.rate
            return keras.ops.where(kept, inputs / (1 - self.rate), 0.0)

    return DataDropout


def _dropout_layer() -> Any:
    return lambda rate, name: _dropout_class()(name)
