"""A checkpoint alone, with arrays instead of a network: what is restored, and what is not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from features.runtime.errors import HeadhuntError
from train.finetuning.checkpoint import Checkpoint, FinetuneState
from train.finetuning.history import Epoch, read_history, write_history
from train.finetuning.journal import Journal

pytestmark = pytest.mark.unit

FROZEN = Epoch(
    epoch=0, phase=0, loss=math.nan, accuracy=math.nan, val_loss=1.0, val_accuracy=0.5, val_top5_accuracy=0.75,
    learning_rate=math.nan, seconds=2.5,
)  # fmt: skip
TRAINED = Epoch(
    epoch=1, phase=1, loss=0.9, accuracy=0.6, val_loss=0.1 + 0.2, val_accuracy=0.7, val_top5_accuracy=0.8,
    learning_rate=1e-05, seconds=3.25,
)  # fmt: skip


class Variable:
    """Stands in for a Keras variable."""

    def __init__(self, *values: float) -> None:
        self.value = np.array(values, np.float32)

    def assign(self, value: npt.NDArray[Any]) -> None:
        self.value = value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.value, dtype)


class Optimizer(NamedTuple):
    variables: list[Variable]


def saved(folder: Path) -> FinetuneState:
    """Writes a checkpoint: best weights 1 and 2, current weights 3 and 4, a momentum of 5."""
    state = FinetuneState(phase=1, best_epoch=1, history=[FROZEN, TRAINED])
    weights = [Variable(1), Variable(2)]
    checkpoint = Checkpoint(folder, weights, "same")
    checkpoint.mark_best()
    weights[0].assign(np.array([3.0]))
    weights[1].assign(np.array([4.0]))
    checkpoint.save(state, Optimizer([Variable(5)]))
    return state


def test_everything_comes_back(tmp_path: Path) -> None:
    state = saved(tmp_path)
    weights, optimizer = [Variable(0), Variable(0)], Optimizer([Variable(0)])
    checkpoint = Checkpoint(tmp_path, weights, "same")
    found = checkpoint.load(Journal(tmp_path))
    assert found is not None and found.model_dump_json() == state.model_dump_json()
    assert math.isnan(found.history[0].loss) and found.history[1] == TRAINED
    checkpoint.load_optimizer(optimizer)
    assert [float(each.value[0]) for each in (*weights, *optimizer.variables)] == [3, 4, 5]
    checkpoint.restore_best()
    assert [float(each.value[0]) for each in weights] == [1, 2]
    optimizer.variables[0].assign(np.array([9.0]))
    checkpoint.load_optimizer(optimizer)  # from another phase
    assert optimizer.variables[0].value == [9.0]


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "checkpoint.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    facts = json.loads(str(arrays["facts"]))
    for epoch in facts["state"]["history"]:
        epoch.update(epoch=float(epoch["epoch"]), phase=float(epoch["phase"]))
    facts["state"].update(best_accuracy=0.7, best_loss=0.3)
    np.savez(path, **{**arrays, "facts": np.array(json.dumps(facts))})
    found = Checkpoint(tmp_path, [Variable(0), Variable(0)], "same").load(Journal(tmp_path))
    assert found is not None and (found.best_epoch, found.history[1]) == (1, TRAINED)


@pytest.mark.parametrize("kept", [0, 200, -30])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, kept: int) -> None:
    saved(tmp_path)
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:kept])
    weights = [Variable(0), Variable(0)]
    with pytest.raises(
        HeadhuntError, match=r"checkpoint.npz is damaged \(.+\)\. Delete it to fine-tune from epoch 0\."
    ):
        Checkpoint(tmp_path, weights, "same").load(Journal(tmp_path))
    assert [float(each.value[0]) for each in weights] == [0, 0]


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_history(tmp_path, [FROZEN, TRAINED])
    assert (tmp_path / "history.csv").read_text() == (
        "epoch,phase,loss,accuracy,val_loss,val_accuracy,val_top5_accuracy,learning_rate,seconds\n"
        "0,0,,,1.0,0.5,0.75,,2.5\n"
        "1,1,0.9,0.6,0.30000000000000004,0.7,0.8,1e-05,3.25\n"
    )
    frozen, trained = read_history(tmp_path)
    assert math.isnan(frozen.loss) and trained == TRAINED
