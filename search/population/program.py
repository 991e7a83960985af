"""The compiled trainer: trials of one structure are lanes of one program on features that stay in memory.

A program trains each of its lanes for one epoch (a `lax.scan` over the steps) and measures them on the validation split. It is
compiled once per structure (the shapes); everything else is data and may differ from lane to lane: initial weights, learning
rates, dropout rate and random stream, L2, label smoothing, weight decay, and which copy of a photo is seen.

The number of lanes in a program depends on the device. A GPU needs many side by side (`vmap`) to be busy. On a CPU a step is
limited by the memory traffic of parameters and moments, so that a lane should have the processor's cache to itself for a whole
epoch: lanes take turns, and threads run different lanes. `lax.map` around the epoch is as fast as taking turns (2.65 and 2.70 ms
a step measured for a hidden layer of 256 on 2,048 features; `vmap` of four lanes takes 5.8 ms), but would have to be compiled for
every number of lanes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from features.cache.views import order_of_epoch
from features.runtime.interrupts import raise_if_cancelled
from features.runtime.workers.keras_internals import learning_rate_variable
from search.heads import build_head
from search.metric import Metric, is_share, sign
from search.population.carry import Carry, Data, Epoch, LaneInputs, SharedInputs
from search.population.dropout import dropout_layer
from search.population.sources import Features, zeros_for_cache_lines
from search.population.structure import Structure, power_of_two
from search.ranking import Score
from search.top5 import TOP
from search.trial import EpochMetrics, TrialConfig, TrialState

if TYPE_CHECKING:
    from jax import Array


class Program:
    """A structure's model and optimiser, and its compiled epoch, on one data set; threads may share it."""

    def __init__(self, structure: Structure, data: Features) -> None:
        self.structure = structure
        self._data = data
        self._columns = data.columns(structure.parts)
        *outer, width = data.shape
        seen = [range(width)[columns] for columns in self._columns]
        self._moments = tuple(np.concatenate([moment[columns] for columns in self._columns]) for moment in data.moments)
        self._shape = (*outer, sum(map(len, seen)))
        self._zeros = data.zeros if structure.parts is None else zeros_for_cache_lines(self._shape) * bool(data.zeros)
        self.model = self._head(structure.head.units, zeros=self._zeros)
        self.optimizer = structure.optimizer.build()
        self.optimizer.build(self.model.trainable_variables)
        self._rate_at = _position(self.optimizer.variables, learning_rate_variable(self.optimizer))
        dropouts = [layer for layer in self.model.layers if layer.name.startswith("dropout")]
        self._dropouts = [_position(self.model.non_trainable_variables, layer.rate) for layer in dropouts]
        self._streams = [_position(self.model.non_trainable_variables, layer.stream) for layer in dropouts]
        self._epochs: dict[tuple[Metric, int, int, int], Epoch] = {}
        self._lock = threading.Lock()

    @property
    def steps_per_epoch(self) -> int:
        """Full batches per epoch, at least 1; the photos left over differ in every epoch."""
        return max(1, len(self._data.train_labels) // self.structure.batch_size)

    def start(self, config: TrialConfig) -> TrialState:
        """The state before the first epoch: weights drawn from the trial's seed."""
        model = self._head(config.head.units, config.seed)
        trainable = _padded(model.trainable_variables, self.model.trainable_variables)
        non_trainable = _padded(model.non_trainable_variables, self.model.non_trainable_variables)
        for position in self._dropouts:
            non_trainable[position] = np.float32(config.head.dropout)
        for order, position in enumerate(self._streams):
            non_trainable[position] = np.random.SeedSequence([config.seed, order]).generate_state(2, np.uint32)
        optimizer = [np.zeros(variable.shape, variable.dtype) for variable in self.optimizer.variables]
        return TrialState(trainable, non_trainable, optimizer, trainable, non_trainable)

    def train(
        self,
        configs: Sequence[TrialConfig],
        states: Sequence[TrialState],
        until: int,
        objective: Metric,
        seed: int | Sequence[int],
        side_by_side: int = 1,
    ) -> list[TrialState]:
        """Trains lanes of this structure up to `until` epochs, `side_by_side` at a time; the given states are not modified.

        `seed` is the search's, or one seed per lane: batches and views depend only on it and the epoch, so that lanes with the
        same seed see the same. A lane whose loss is not finite ends with `failure` set and does not affect the others. With one
        lane at a time, a lane's curve is bit for bit that of the trial trained alone; side by side, up to the rounding of sums
        (losses within 1e-4 after a few epochs).
        """
        seeds = [seed] * len(configs) if isinstance(seed, int) else seed
        trained: list[TrialState] = []
        for first in range(0, len(configs), side_by_side):
            lanes = slice(first, first + side_by_side)
            trained += self._train_together(configs[lanes], states[lanes], until, objective, seeds[lanes])
        return trained

    def _train_together(
        self,
        configs: Sequence[TrialConfig],
        states: Sequence[TrialState],
        until: int,
        objective: Metric,
        seeds: Sequence[int],
    ) -> list[TrialState]:
        import jax

        lanes = [replace(state, curves=list(state.curves)) for state in states]
        # The number of lanes is a shape: dummy lanes pad it to a power of two, so that few programs are compiled.
        filled = pad_to_power_of_two(list(range(len(lanes))))
        carry = jax.tree.map(lambda *values: np.stack(values), *[Carry(*lanes[n].arrays) for n in filled])
        data = Data(self._data.train, self._data.train_labels, self._data.val, self._data.val_labels)
        for epoch in range(len(lanes[0].curves), until):
            raise_if_cancelled()
            each, shared = self._inputs(
                [configs[n] for n in filled],
                [lanes[n] for n in filled],
                epoch,
                [seeds[n] for n in filled],
                objective,
            )
            arguments = (carry, each, shared, data)
            carry, numbers = self._epoch(objective, *arguments)(*arguments)
            photos = len(self._data.val_labels)
            for n, measured in enumerate(np.asarray(numbers)[: len(lanes)].tolist()):
                *shown, right, right_in_five = measured
                shares = (right / photos, right_in_five / photos)
                metrics = EpochMetrics._make([epoch + 1, *shown, *shares, float(each.rates[n, -1])])
                _note(lanes[n], metrics, objective)
            if all(lane.failure for lane in lanes):
                break
        carry = jax.device_get(carry)
        for n, lane in enumerate(lanes):
            arrays = jax.tree.map(lambda values, n=n: values[n], carry)
            lane.trainable, lane.non_trainable, lane.optimizer, lane.best_trainable, lane.best_non_trainable = arrays
        return lanes

    def best_weights(self, config: TrialConfig, state: TrialState) -> dict[str, npt.NDArray[np.float32]]:
        """The weights of the best epoch by `<layer>.<weight>`, in the shapes of a head of stock layers."""
        shapes = self._shapes(config.head.units)
        values: dict[int, Any] = {}
        for variables, arrays in (
            (self.model.trainable_variables, state.best_trainable),
            (self.model.non_trainable_variables, state.best_non_trainable),
        ):
            values |= {id(variable): array for variable, array in zip(variables, arrays, strict=True)}
        weights = {f"{layer.name}.{weight.name}": weight for layer in self.model.layers for weight in layer.weights}
        return {
            name: np.asarray(values.get(id(weight), weight))[tuple(map(slice, shapes[name]))]
            for name, weight in weights.items()
            if not name.startswith("dropout")
        }

    def _head(self, units: tuple[int, ...], seed: int | None = None, zeros: int = 0) -> Any:
        """This structure's head with the given (unrounded) widths, on the backbone's features and `zeros` zero features."""
        head = self.structure.head.model_copy(update={"units": units})
        *outer, width = self._shape
        mean, variance = self._moments
        moments = np.pad(mean, (0, zeros)), np.pad(variance, (0, zeros), constant_values=1)
        return build_head(head, (*outer, width + zeros), self._data.classes, moments, dropout_layer, seed)

    def _shapes(self, units: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        exact = units == self.structure.head.units and self._zeros == 0
        model = self.model if exact else self._head(units)
        return {f"{layer.name}.{weight.name}": weight.shape for layer in model.layers for weight in layer.weights}

    def _inputs(
        self,
        configs: Sequence[TrialConfig],
        states: Sequence[TrialState],
        epoch: int,
        seeds: Sequence[int],
        objective: Metric,
    ) -> tuple[LaneInputs, SharedInputs]:
        """The inputs of an epoch besides the states."""
        steps, images = self.steps_per_epoch, len(self._data.train_labels)
        seen = [(config.views, seed) for config, seed in zip(configs, seeds, strict=True)]
        views, orders = list(dict.fromkeys(seen)), list(dict.fromkeys(seeds))
        each = LaneInputs(
            rates=np.stack([_rates(*trial, epoch, steps) for trial in zip(configs, states, strict=True)]),
            view=np.array([views.index(pair) for pair in seen], np.int32),
            turn=np.array([orders.index(seed) for seed in seeds], np.int32),
            l2=np.array([config.head.l2 for config in configs], np.float32),
            smoothing=np.array([config.head.label_smoothing for config in configs], np.float32),
            decay=np.array([config.optimizer.decay for config in configs], np.float32),
            best=np.array([_best_so_far(state, objective, len(self._data.val_labels)) for state in states], np.float32),
        )
        rows = [self._data.rows_of_epoch(view, epoch, seed) for view, seed in pad_to_power_of_two(views)]
        batches = [
            _batches(seed, epoch, images, self.structure.batch_size, steps) for seed in pad_to_power_of_two(orders)
        ]
        return each, SharedInputs(np.stack(batches), np.stack(rows))

    def _epoch(self, objective: Metric, carry: Carry, each: LaneInputs, shared: SharedInputs, data: Data) -> Epoch:
        """The program for these shapes; one thread compiles it while others wait."""
        import jax

        key = (objective, len(each.view), len(shared.rows), len(shared.orders))
        with self._lock:
            if key not in self._epochs:
                function = jax.jit(partial(self._train_and_measure, objective), compiler_options=_compiler_options())
                self._epochs[key] = function.lower(carry, each, shared, data).compile()
            return self._epochs[key]

    def _train_and_measure(
        self, objective: Metric, carry: Carry, each: LaneInputs, shared: SharedInputs, data: Data
    ) -> tuple[Carry, Array]:
        """One epoch of every lane: the next carry, and (lanes, 5) float32, the measured fields of EpochMetrics in order, but the
        numbers of photos instead of their shares: numbers are exact, so that ties are ties."""
        import jax
        import jax.numpy as jnp

        place, towards = EpochMetrics._fields.index(objective) - 1, -sign(objective)
        loss_place = EpochMetrics._fields.index("val_loss") - 1
        val = self._seen(data.val)

        def lane(carry: Carry, own: LaneInputs) -> tuple[Carry, Array]:
            carry, seen = self._train(carry, own, shared, data)
            now = (carry.trainable, carry.non_trainable)
            numbers = jnp.stack([*seen, *self._measure(*now, val, data.val_labels)])
            value, (best_value, best_loss) = towards * numbers[place], own.best
            better = (value < best_value) | ((value == best_value) & (numbers[loss_place] < best_loss))
            before = (carry.best_trainable, carry.best_non_trainable)
            trainable, non_trainable = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, before)
            return carry._replace(best_trainable=trainable, best_non_trainable=non_trainable), numbers

        if len(each.view) > 1:
            together: tuple[Carry, Array] = jax.vmap(lane)(carry, each)
            return together
        # On a CPU, vmap of a single lane is half as fast as the lane itself.
        carry, numbers = lane(*jax.tree.map(lambda values: values[0], (carry, each)))
        return Carry(*jax.tree.map(lambda value: value[None], carry)), numbers[None]

    def _train(
        self, carry: Carry, own: LaneInputs, shared: SharedInputs, data: Data
    ) -> tuple[Carry, tuple[Array, Array]]:
        """One epoch of one lane (arrays without the lane axis), one step per batch. Returns the next carry, and the mean over
        batches of the cross-entropy (without the L2 penalty) and the accuracy."""
        import jax
        import jax.numpy as jnp

        kernels = [n for n, variable in enumerate(self.model.trainable_variables) if variable.name == "kernel"]
        classes = self._data.classes
        # If all lanes have the same views and seed, the batch does not depend on the lane and is gathered once.
        row_of = shared.rows[0] if len(shared.rows) == 1 else shared.rows[own.view]
        order = shared.orders[0] if len(shared.orders) == 1 else shared.orders[own.turn]

        def loss_of(
            trainable: list[Array], non_trainable: list[Array], x: Array, y: Array
        ) -> tuple[Array, tuple[list[Array], Array, Array]]:
            logits, non_trainable = self.model.stateless_call(trainable, non_trainable, x, training=True)
            wanted = jax.nn.one_hot(y, classes) * (1 - own.smoothing) + own.smoothing / classes
            entropy = -(wanted * jax.nn.log_softmax(logits)).sum(-1).mean()
            penalty = own.l2 * sum(jnp.square(trainable[n]).sum() for n in kernels)
            return entropy + penalty, (non_trainable, entropy, _are_largest(logits, y).mean())

        def step(carry: Carry, batch: tuple[Array, Array]) -> tuple[Carry, tuple[Array, Array]]:
            images, rate = batch
            x, y = self._seen(data.train[row_of[images], images]), data.train_labels[images]
            gradient = jax.grad(loss_of, has_aux=True)
            gradients, (non_trainable, entropy, hits) = gradient(carry.trainable, carry.non_trainable, x, y)
            trainable = [weight * (1 - rate * own.decay) for weight in carry.trainable]
            optimizer = [rate if n == self._rate_at else value for n, value in enumerate(carry.optimizer)]
            trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
            changed = {"trainable": trainable, "non_trainable": non_trainable, "optimizer": optimizer}
            return carry._replace(**changed), (entropy, hits)

        best = carry.best_trainable, carry.best_non_trainable  # steps do not change it: keep it outside the loop
        inside = carry._replace(best_trainable=[], best_non_trainable=[])
        inside, (losses, hits) = jax.lax.scan(step, inside, (order, own.rates))
        carry = inside._replace(best_trainable=best[0], best_non_trainable=best[1])
        return carry, (losses.mean(), hits.mean())

    def _seen(self, features: Array) -> Array:
        """The head's view of stored features: the columns of its parts in float32, followed by its zeros."""
        import jax.numpy as jnp

        if self.structure.parts is None:
            return features.astype(jnp.float32)
        seen = [features[..., columns].astype(jnp.float32) for columns in self._columns]
        return jnp.concatenate([*seen, jnp.zeros((*features.shape[:-1], self._zeros), jnp.float32)], axis=-1)

    def _measure(
        self, trainable: list[Array], non_trainable: list[Array], features: Array, labels: Array
    ) -> tuple[Array, Array, Array]:
        """Validation loss of one lane, and how many photos are right, also among the first five, each float32."""
        import jax
        import jax.numpy as jnp

        logits, _ = self.model.stateless_call(trainable, non_trainable, features, training=False)
        rows = jnp.arange(len(labels))
        loss = -jax.nn.log_softmax(logits)[rows, labels].mean()
        better = (logits > logits[rows, labels][:, None]).sum(-1)
        right = [hits.sum().astype(jnp.float32) for hits in (logits.argmax(-1) == labels, better < TOP)]
        return loss, right[0], right[1]


def _are_largest(logits: Array, labels: Array) -> Array:
    """Whether each row's largest logit is that of its label, (batch,) bool; avoids argmax, which XLA does not vectorise."""
    import jax.numpy as jnp

    return jnp.take_along_axis(logits, labels[:, None], 1)[:, 0] >= logits.max(-1)


def _note(lane: TrialState, metrics: EpochMetrics, objective: Metric) -> None:
    """Adds an epoch to a lane's curves, or its failure."""
    if lane.failure:
        return
    if not np.isfinite([metrics.loss, metrics.val_loss]).all():
        lane.failure = f"the loss is not finite after epoch {metrics.epoch} (learning rate {metrics.learning_rate:.3g})"
        return
    lane.curves.append(metrics)
    best = lane.curves[lane.best_epoch - 1]
    if lane.best_epoch == 0 or Score.of_epoch(objective, metrics) < Score.of_epoch(objective, best):
        lane.best_epoch = metrics.epoch


def _best_so_far(lane: TrialState, objective: Metric, photos: int) -> Score:
    """The score of the best epoch, with a number of photos instead of a share; the worst possible score before the first."""
    if lane.best_epoch == 0:
        return Score(np.inf, np.inf)
    best = lane.curves[lane.best_epoch - 1]
    value = getattr(best, objective)
    return Score(-sign(objective) * (round(value * photos) if is_share(objective) else value), best.val_loss)


def _rates(config: TrialConfig, lane: TrialState, epoch: int, steps_per_epoch: int) -> npt.NDArray[np.float32]:
    """The learning rate of every step of a lane's epoch, (steps,) float32; 0 for a failed lane."""
    if lane.failure:
        return np.zeros(steps_per_epoch, np.float32)
    val_losses = [metrics.val_loss for metrics in lane.curves]
    return config.schedule.rates_of_epoch(epoch, steps_per_epoch, config.epochs, val_losses)


@lru_cache(maxsize=128)
def _batches(seed: int, epoch: int, images: int, batch_size: int, steps: int) -> npt.NDArray[np.int32]:
    """The photos of every step: (steps, batch_size) int32, a pure function of the seed and the epoch."""
    return np.resize(order_of_epoch(epoch, images, seed), (steps, batch_size)).astype(np.int32)


def pad_to_power_of_two(values: list[Any]) -> list[Any]:
    """Repeats the first value until the length, which is a shape, is a power of two."""
    return values + values[:1] * (power_of_two(len(values)) - len(values))


def _padded(variables: list[Any], like: list[Any]) -> list[Any]:
    """The values of variables, zero-padded to the shapes of `like`."""
    padded = []
    for variable, wider in zip(variables, like, strict=True):
        values = np.asarray(variable)
        padded.append(np.zeros(wider.shape, values.dtype))
        padded[-1][tuple(map(slice, values.shape))] = values
    return padded


def _position(variables: list[Any], wanted: Any) -> int:
    return next(position for position, variable in enumerate(variables) if variable is wanted)


def _compiler_options() -> dict[str, Any]:
    """On a CPU, matrix products run on the calling thread only: other threads train other lanes, and sums do not depend on the
    number of threads."""
    import jax

    return {"xla_cpu_multi_thread_eigen": False} if jax.default_backend() == "cpu" else {}
