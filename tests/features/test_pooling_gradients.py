"""The gradients of poolings with a root in them, on JAX."""

from __future__ import annotations

import json

import pytest

from tests.forks import run_python

ROOTS = [f"{part} {size}" for part in ("gem:0.1", "gem:3", "gem:6", "covariance:4") for size in (4, 1)]
"""Poolings with a root in them, each with the size of a map."""


@pytest.fixture(scope="module")
def gradients() -> dict[str, list[bool]]:
    """Whether the gradients of each of ROOTS are finite, on constant maps and where one of two maps is not; on JAX, where
    the derivative of a root at 0 is infinite, in a process of its own."""
    body = f"""
import json
import jax, numpy as np
from features.backbones.pooling_layers import build_pooling
from features.backbones.projection import MapMoments, fit
random = np.random.default_rng(0).normal(size=(100, 6))
fitted = (fit(MapMoments(100, random.sum(0), random.T @ random), 4),)

def finite(pooling, size):
    shape = (size, size, 6)
    model = build_pooling(pooling, [shape], fitted)
    state = ([v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables])
    loss = lambda maps: (model.stateless_call(*state, maps, training=False)[0] ** 2).sum()
    for value in (0.0, -1.0, 1.5):
        maps = np.full((2, *shape), value, "float32")
        yield bool(np.isfinite(np.asarray(jax.grad(loss)(maps))).all())
        maps[0] = np.random.default_rng(1).random(shape)
        yield bool(np.isfinite(np.asarray(jax.grad(loss)(maps))).all())

print(json.dumps({{one: list(finite(one.split()[0], int(one.split()[1]))) for one in {ROOTS}}}))
"""
    done = run_python(body)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[bool]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("pooling", ROOTS)
def test_gradients_are_numbers_on_maps_without_anything_on_them(gradients: dict[str, list[bool]], pooling: str) -> None:
    assert gradients[pooling] == [True] * 6
