"""Accuracies tie often: equal shares are equal, and among them the epoch with the lower loss is kept, weights included."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from search.ranking import Score
from search.trial import EpochMetrics
from tests.forks import run_python

BODY = """
import json
import jax, numpy as np
from features.audit.moments import feature_moments
from features.cache.views import Views
from search.heads import HeadConfig
from search.optimizers import LBFGS, SGD
from search.population.probing import solve_probe
from search.population.program import Program
from search.population.sources import Features
from search.population.structure import structure_of
from search.schedules import Constant
from search.trial import TrialConfig

random = np.random.default_rng(0)
labels = random.integers(0, 3, 60).astype(np.int32)
features = (random.normal(size=(1, 60, 8)) + 0.6 * np.eye(8)[labels]).astype(np.float32)
val_labels = random.integers(0, 3, 33).astype(np.int32)
val = (random.normal(size=(33, 8)) + 0.6 * np.eye(8)[val_labels]).astype(np.float32)
data = Features(*map(jax.device_put, (features, labels, val, val_labels)), 3, feature_moments(features[0]))
head = HeadConfig(standardize=False)
configs = [TrialConfig(head=head, schedule=Constant(learning_rate=0.03), optimizer=SGD(momentum=0), batch_size=20,
                       views=Views(copies=0), epochs=12, seed=seed) for seed in range(24)]
program = Program(structure_of(configs[0]), data)
found = []
for side_by_side in (1, 8):
    states = program.train(configs, [program.start(one) for one in configs], 12, "val_accuracy", 0, side_by_side)
    for config, state in zip(configs, states):
        weights = program.best_weights(config, state)
        logits = val.astype(np.float64) @ weights["classifier.kernel"] + weights["classifier.bias"]
        shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        loss = -shifted[np.arange(33), val_labels].mean()
        right = int((logits.argmax(-1) == val_labels).sum())
        found.append({"curves": [list(m) for m in state.curves], "best_epoch": state.best_epoch, "loss": loss, "right": right})
probe = solve_probe(TrialConfig(head=head, optimizer=LBFGS()), data)
print(json.dumps({"heads": found, "probe": probe.metrics.val_accuracy}))
"""


@pytest.fixture(scope="module")
def found() -> Any:
    done = run_python(BODY)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_share_is_the_number_of_photos_that_are_right_divided_by_all(found: Any) -> None:
    shares = {epoch[4] for head in found["heads"] for epoch in head["curves"]} | {found["probe"]}
    assert len(shares) > 5
    assert shares <= {right / 33 for right in range(34)}


def test_the_best_weights_are_those_of_the_best_epoch_among_ties_too(found: Any) -> None:
    ties = 0
    for head in found["heads"]:
        epochs = [EpochMetrics._make(epoch) for epoch in head["curves"]]
        wanted = min(epochs, key=lambda one: (-one.val_accuracy, one.val_loss, one.epoch))
        ties += sum(one.val_accuracy == wanted.val_accuracy for one in epochs) > 1
        assert head["best_epoch"] == wanted.epoch
        assert head["right"] == round(33 * wanted.val_accuracy)
        assert head["loss"] == pytest.approx(wanted.val_loss, rel=1e-5)
    assert ties > 20


def test_a_share_in_single_precision_ties_with_the_same_in_double() -> None:
    single = float(np.nextafter(np.float32(27 / 33), np.float32(1)))  # as earlier versions stored it
    assert Score.of("val_accuracy", single, 0.5) == Score.of("val_accuracy", 27 / 33, 0.5)
