"""Inputs and outputs of a compiled epoch: the states of its lanes, their inputs, and the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jax import Array


class Carry(NamedTuple):
    """The states of all lanes, as in TrialState: one array (lanes, *shape) per variable. A hidden layer's kernel is
    (lanes, in, out) float32, a dropout's random stream (lanes, 2) uint32."""

    trainable: list[Array]
    non_trainable: list[Array]
    optimizer: list[Array]
    best_trainable: list[Array]
    best_non_trainable: list[Array]


class LaneInputs(NamedTuple):
    """The inputs of an epoch for each lane besides its state: (lanes, ...)."""

    rates: Array
    """(lanes, steps) float32: the learning rate of every step; 0 for a lane that has failed."""
    view: Array
    """(lanes,) int32: index into SharedInputs.rows."""
    turn: Array
    """(lanes,) int32: index into SharedInputs.orders."""
    l2: Array
    smoothing: Array
    decay: Array
    """(lanes,) float32 each: L2 penalty of kernels, label smoothing, decoupled weight decay."""
    best: Array
    """(lanes, 2) float32: the Score of the best epoch so far, with a number of photos instead of a share."""


class SharedInputs(NamedTuple):
    """The inputs of an epoch that lanes share."""

    orders: Array
    """(seeds, steps, batch) int32: the photos of every step."""
    rows: Array
    """(views, n) int32: the row of the training features in which each photo is seen."""


class Data(NamedTuple):
    """Features and labels on the device: train (rows, n, *feature_shape), val (m, *feature_shape), labels int32."""

    train: Array
    train_labels: Array
    val: Array
    val_labels: Array


Epoch = Callable[[Carry, LaneInputs, SharedInputs, Data], tuple[Carry, "Array"]]
"""A compiled epoch: returns the next carry, and (lanes, 5) float32: loss, accuracy, validation loss, and how many validation
photos are right at first and among the first five."""
