"""Arithmetic that a search achieves, beside what the machine's products and its memory allow at those sizes."""

from __future__ import annotations

import json
import os
import statistics

import pytest

from tests.benchmarks.searches import process

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

BODY = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
import jax, jax.numpy as jnp, numpy as np
from features.cache.views import Views
from features.audit.moments import feature_moments
from search.heads import HeadConfig
from search.population.program import Program
from search.population.sources import Features
from search.population.structure import structure_of
from search.trial import TrialConfig

threads, units = int(sys.argv[1]), json.loads(sys.argv[2])
images, width, classes, epochs, batch = 6500, 2048, 196, 10, 64
random = np.random.default_rng(0)
features = random.normal(size=(images, width)).astype(np.float16)
labels = random.integers(0, classes, images).astype(np.int32)
val, val_labels = features[:1300], labels[:1300]
data = Features(*map(jax.device_put, (features[None], labels, val, val_labels)), classes, feature_moments(features))
head = HeadConfig(units=tuple(units), dropout=0.5, l2=1e-5)
config = TrialConfig(head=head, batch_size=batch, views=Views(copies=0), epochs=epochs)
program = Program(structure_of(config), data)
widths = [width, *units, classes]
weights = sum(a * b for a, b in zip(widths, widths[1:]))
# Forward and the weights' gradients, and the inputs' gradients of all layers but the first; then validation.
products = 2 * batch * (3 * weights - widths[0] * widths[1])
flops = epochs * (program.steps_per_epoch * products + 2 * len(val) * weights)
# Weights are read by both passes; the gradient is written and read; Adam reads and writes weights and both moments.
traffic = 4 * weights * (2 + 2 + 6) + 2 * batch * width

def trial():
    program.train([config], [program.start(config)], epochs, "val_accuracy", 0)

options = {"xla_cpu_multi_thread_eigen": False}

def compiled(function, *arguments):
    program = jax.jit(function, compiler_options=options).lower(*arguments).compile()
    return lambda: jax.block_until_ready(program(*arguments))

times = 200
x = random.normal(size=(batch, width)).astype(np.float32)
w = random.normal(size=(width, widths[1])).astype(np.float32)

def product(x, w):
    def step(x, _):
        return x + 1e-9 * (x @ w)[:, :1], None
    return jax.lax.scan(step, x, None, length=times)[0]

moments = tuple(random.normal(size=weights).astype(np.float32) for _ in range(4))

def stream(a, b, c, d):
    def step(carry, _):
        a, b, c = carry
        return (a + 1e-3 * d, b + 1e-3 * a, c + 1e-3 * b), None
    return jax.lax.scan(step, (a, b, c), None, length=times)[0]

calls = {"trial": trial, "product": compiled(product, x, w), "stream": compiled(stream, *moments)}
trial()
work = {"trial": flops, "product": times * 2 * batch * width * widths[1], "stream": times * 4 * weights * 9}
rates = {name: [] for name in calls}
with ThreadPoolExecutor(threads) as pool:
    for _ in range(5):
        for name, call in calls.items():
            started = time.perf_counter()
            list(pool.map(lambda _: call(), range(threads)))
            rates[name].append(threads * work[name] / (time.perf_counter() - started) / 1e9)
print(json.dumps({"rates": rates, "intensity": products / traffic}))
"""


def test_what_a_search_achieves_of_its_roofline() -> None:
    """Heads of the 64-trial search, one on every core at a time; rates of all cores together, medians of 5 that take turns.

    The roofline (Williams, Waterman and Patterson, 2009) is the smaller of the product's rate and intensity × bandwidth.
    """
    threads = os.cpu_count() or 1
    print(f"\n{threads} cores; a trial's GFLOP/s includes validation and drawing its initial weights")
    for units in ([], [128], [256], [512]):
        environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        _, found = process(BODY, str(threads), json.dumps(units), **environment)
        trial, product, stream = (statistics.median(found["rates"][name]) for name in ("trial", "product", "stream"))
        roof = min(product, found["intensity"] * stream)
        print(
            f"  hidden units {units or 'none'}: {trial:.0f} GFLOP/s, {trial / roof:.0%} of {roof:.0f} (products of these sizes "
            f"{product:.0f} GFLOP/s, memory {stream:.0f} GB/s × {found['intensity']:.1f} FLOP a byte)"
        )
