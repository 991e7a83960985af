"""Pooling as stock Keras layers, shared by the cache, fine-tuning and all exports: maps in, one vector out, in float32.

Covariance pooling captures how channels vary together over the positions of a map, while an average captures only their means.
Its matrix square root is essential: Li et al., "Is Second-order Information Helpful for Large-scale Visual Recognition?"
(MPN-COV, 2017; arXiv 1904.06836), and "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square
Root Normalization" (iSQRT-COV, arXiv 1712.01034), whose iteration is used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from features.backbones.projection import Projection
from features.pooling import Part, parse_pooling

ITERATIONS = 7
"""Newton-Schulz iterations for the matrix square root. More do not improve accuracy, and they need not converge, since cache and
network use the same number."""

RIDGE = 1e-5
"""Added to the diagonal, as a share of its mean: a map has fewer positions than channels, so its covariance is rank-deficient."""

TINY = 1e-12
"""Added to the centred map: the norm of a constant map would have no gradient."""

SMALLEST = 1e-6
"""Lower bound that `gem` clips values to before taking powers."""


def build_pooling(pooling: str, shapes: Sequence[tuple[int, ...]], projections: Sequence[Projection]) -> Any:
    """A keras.Model "pooling": maps (batch, h, w, channels) to (batch, features) float32; `shapes` are (h, w, channels) per map.

    `none` returns the only map, in float32. `projections` has one per map if a part is a covariance; otherwise it may be empty.
    All layers are frozen; gradients pass through.
    """
    import keras
    from keras import layers

    inputs = [keras.Input(shape, name=f"map_{number}") for number, shape in enumerate(shapes, start=1)]
    maps = [layers.Activation("linear", dtype="float32", name=f"float_{n}")(x) for n, x in enumerate(inputs, start=1)]
    pooled = []
    for number, x in enumerate(maps):
        parts = parse_pooling(pooling)
        for place, part in enumerate(parts):
            projection = projections[number] if part.kind == "covariance" else None
            another = any(earlier.kind == part.kind for earlier in parts[:place])
            name = f"{part.kind}_{number + 1}{f'_{part.number:g}' if another else ''}"
            pooled.append(_pool(part, x, projection, name))
    if len(pooled) > 1:
        pooled = [layers.Concatenate(dtype="float32", name="joined")(pooled)]
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], (pooled or maps)[0], name="pooling")
    for layer in model.layers:
        layer.trainable = False
    return model


def _pool(part: Part, x: Any, projection: Projection | None, name: str) -> Any:
    from keras import layers, ops

    match part.kind:
        case "avg":
            return layers.GlobalAveragePooling2D(dtype="float32", name=name)(x)
        case "max":
            return layers.GlobalMaxPooling2D(dtype="float32", name=name)(x)
        case "gem":
            return ops.power(ops.mean(ops.power(ops.maximum(x, SMALLEST), part.number), axis=(1, 2)), 1 / part.number)
        case _:
            assert projection is not None
            return _covariance(x, projection.kernel[:, : part.components(int(x.shape[-1]))], name)


def _covariance(x: Any, kernel: Any, name: str) -> Any:
    """The matrix square root of the covariance of the projected channels over a map's positions, as (batch, n (n + 1) / 2): its
    upper triangle row by row, off-diagonals times √2, so that distances between vectors equal those between matrices."""
    from keras import layers, ops

    (_, height, width, channels), count = x.shape, kernel.shape[1]
    places, plain = height * width, {"dtype": "float32"}
    project = layers.Conv2D(count, 1, use_bias=False, name=name, **plain)
    x = project(x)
    project.set_weights([np.asarray(kernel).reshape(1, 1, channels, count)])
    x = layers.Reshape((places, count), **plain)(x)
    x = layers.Subtract(**plain)([x, layers.GlobalAveragePooling1D(keepdims=True, **plain)(x)])
    flat = layers.Rescaling(1.0, TINY, **plain)(layers.Flatten(**plain)(x))
    unit = layers.UnitNormalization(**plain)(flat)  # so that the product below has trace 1
    length = layers.Dot(1, **plain)([flat, unit])
    rows = layers.Reshape((places, count), **plain)(unit)
    eye = np.eye(count)
    diagonal = (eye * RIDGE / count / (1 + RIDGE)).tolist()
    matrix = layers.Rescaling(1 / (1 + RIDGE), diagonal, **plain)(layers.Dot(1, **plain)([rows, rows]))
    correct = layers.Rescaling(-0.5, (1.5 * eye).tolist(), **plain)
    product = layers.Dot((2, 1), **plain)
    step = correct(matrix)
    root, inverse = product([matrix, step]), step
    for iteration in range(2, ITERATIONS + 1):
        step = correct(product([inverse, root]))
        root = product([root, step])
        if iteration < ITERATIONS:
            inverse = product([step, inverse])
    row, column = np.triu_indices(count)
    places_in_matrix = (row * count + column).astype(np.int32)
    triangle = ops.take(layers.Flatten(**plain)(root), places_in_matrix, axis=1)
    scale = np.where(row == column, 1, np.sqrt(2)) / np.sqrt(places)
    return layers.Multiply(**plain)([layers.Rescaling(scale.tolist(), **plain)(triangle), length])
