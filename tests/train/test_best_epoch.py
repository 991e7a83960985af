"""Which epoch fine-tuning keeps, and which layers it reports as changed; metrics are made up, weights are real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from reports.config import Run
from search.metric import Metric
from tests.train.test_finetune import HEAD, tune
from train.evaluate import Metrics

HEAD_PHASE = {"unfreeze": "head", "epochs": 1, "learning_rate": 1e-2}
CONV_PHASE = {"unfreeze": 1, "epochs": 1, "learning_rate": 1e-2}


def measured(monkeypatch: pytest.MonkeyPatch, *epochs: tuple[float, float, float]) -> None:
    """Assigns these accuracies, top-5 accuracies and losses to the epochs, from 0 on."""
    given = iter(epochs)

    def measure(*_: Any) -> Metrics:
        accuracy, top5, loss = next(given)
        return Metrics(accuracy=accuracy, top5_accuracy=top5, loss=loss, ece=0.1)

    monkeypatch.setattr("train.finetuning.finetune.measure", measure)


def weights(network: Any) -> list[Any]:
    return [np.array(weight) for weight in network.get_layer("head").trainable_variables]


def test_of_epochs_with_equal_accuracy_the_one_with_the_lower_loss_is_kept(
    searched: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = [(0.5, 1.0, 1.0), (0.75, 1.0, 0.9), (0.75, 1.0, 0.6), (0.75, 1.0, 0.6)]
    kept = []
    for number in (1, 2, 3):
        measured(monkeypatch, *epochs)
        network, done, _ = tune(searched, tmp_path / str(number), epochs=number)
        kept.append((done.best_epoch, weights(network)))
    assert [epoch for epoch, _ in kept] == [1, 2, 2]  # among epochs equal in both, the first
    (_, first), (_, second), (_, third) = kept
    assert all(np.array_equal(one, other) for one, other in zip(second, third, strict=True))
    assert not all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(("objective", "best"), [("val_accuracy", 1), ("val_loss", 2), ("val_top5_accuracy", 3)])
def test_the_objective_of_the_search_chooses_the_epoch(
    searched: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: Metric, best: int
) -> None:
    measured(monkeypatch, (0.5, 0.5, 1.0), (0.9, 0.6, 2.0), (0.6, 0.6, 0.1), (0.6, 0.9, 0.5))
    _, done, _ = tune(searched, tmp_path / "run", HEAD, objective, epochs=3)
    assert done.best_epoch == best


@pytest.mark.parametrize(
    ("phases", "accuracies", "changed"),
    [
        ([{**CONV_PHASE, "unfreeze": 0}], (0.5, 0.6), 0),
        ([HEAD_PHASE, CONV_PHASE], (0.5, 0.8, 0.6), 0),  # the second phase is discarded
        ([HEAD_PHASE, CONV_PHASE], (0.5, 0.8, 0.9), 1),
        ([CONV_PHASE, HEAD_PHASE], (0.5, 0.4, 0.9), 0),  # the first is
        ([CONV_PHASE, HEAD_PHASE], (0.5, 0.6, 0.9), 1),
        ([CONV_PHASE], (0.5, 0.4), 0),  # it stays frozen
    ],
)
def test_unfrozen_layers_are_those_whose_weights_differ_from_the_backbones_file(
    searched: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    phases: list[dict[str, Any]],
    accuracies: tuple[float, ...],
    changed: int,
) -> None:
    measured(monkeypatch, *((accuracy, 1.0, 1.0) for accuracy in accuracies))
    network, done, _ = tune(searched, tmp_path / "run", phases=phases)
    before = keras.saving.load_model(searched.features.backbone).layers
    after = network.get_layer("extractor").get_layer("backbone").layers
    differ = [
        layer.name
        for layer, old in zip(after, before, strict=True)
        if not all(np.array_equal(*both) for both in zip(layer.get_weights(), old.get_weights(), strict=True))
    ]
    assert done.unfrozen == differ
    assert len(differ) == changed
