"""Seconds a trial: the compiled trainer against Keras's own `fit` on JAX, alternating, on the same head and data."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

BODY = """
import json, statistics, time
import keras, numpy as np
from features.audit.moments import feature_moments
from search.heads import HeadConfig, build_head
from search.population.program import Program
from search.population.sources import Features
from search.population.structure import structure_of
from search.trial import TrialConfig
from features.cache.views import Views
import jax
assert keras.backend.backend() == "jax"
random = np.random.default_rng(0)
images, width, classes, epochs, batch = 6500, 2048, 196, 10, 64
features = random.normal(size=(images, width)).astype(np.float16)
labels = random.integers(0, classes, images).astype(np.int32)
val, val_labels = features[:1300], labels[:1300]
moments = feature_moments(features)
data = Features(*map(jax.device_put, (features[None], labels, val, val_labels)), classes, moments)
config = TrialConfig(head=HeadConfig(units=(256,), dropout=0.5), batch_size=batch, views=Views(copies=0), epochs=epochs)
program = Program(structure_of(config), data)

def ours():
    return program.train([config], [program.start(config)], epochs, "val_accuracy", 0)

def fit(model):
    model.fit(features32, labels, batch_size=batch, epochs=epochs, verbose=0, validation_data=(val32, val_labels))

features32, val32 = features.astype(np.float32), val.astype(np.float32)
model = build_head(config.head, (width,), classes, moments)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
top5 = keras.metrics.SparseTopKCategoricalAccuracy(5)
model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy", top5])
ours(); fit(model)  # compilation is not measured
seconds = {"ours": [], "fit": []}
for _ in range(5):
    for name, call in (("ours", ours), ("fit", lambda: fit(model))):
        started = time.perf_counter(); call(); seconds[name].append(time.perf_counter() - started)
print(json.dumps({name: statistics.median(values) for name, values in seconds.items()}))
"""


@pytest.mark.benchmark
def test_a_trial_against_keras_fit() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_THREEFRY_PARTITIONABLE": "1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", BODY], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seconds = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\nDense(256), Adam, batch 64, 6,500 × 2,048 features, 10 epochs, medians: compiled trainer {seconds['ours']:.2f} s, "
        f"Keras fit on JAX {seconds['fit']:.2f} s, ratio {seconds['fit'] / seconds['ours']:.2f}"
    )
