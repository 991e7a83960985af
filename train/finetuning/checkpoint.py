"""The checkpoint of a fine-tuning run, checkpoint.npz: everything that an epoch changes, so that a later process can resume."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from features.runtime.atomic import atomic_path
from features.runtime.errors import HeadhuntError
from features.runtime.log import relative
from search.metric import Metric
from train.config import PhaseConfig
from train.finetuning.history import Epoch
from train.finetuning.journal import Journal

CHECKPOINT = "checkpoint.npz"


class FinetuneState(BaseModel):
    """The progress of a fine-tuning run, besides weights: the phase (from 1), the number of epochs before it, and all epochs.

    Unknown keys are ignored: earlier versions also wrote the best accuracy and loss.
    """

    model_config = ConfigDict(extra="ignore")

    phase: int = 1
    before_phase: int = 0
    best_epoch: int = 0
    history: list[Epoch] = []

    @property
    def epochs(self) -> int:
        """Number of completed epochs, without epoch 0."""
        return len(self.history) - 1

    @property
    def val_losses(self) -> list[float]:
        """The validation losses of this phase's epochs."""
        return [epoch.val_loss for epoch in self.history[self.before_phase + 1 :]]

    def add(self, epoch: Epoch, objective: Metric) -> bool:
        """Adds a completed epoch; returns whether it is the best so far."""
        is_best = epoch.score(objective) < self.history[self.best_epoch].score(objective)
        self.history.append(epoch)
        if is_best:
            self.best_epoch = self.epochs
        return is_best

    def phases_to_best(self, objective: Metric) -> set[int]:
        """The phases (from 1) that contributed to the best epoch's weights: those with an epoch that was the best so far. The
        weights of other phases were discarded."""
        scores = [epoch.score(objective) for epoch in self.history]
        risen = [number for number in range(1, len(scores)) if scores[number] < min(scores[:number])]
        return {self.history[number].phase for number in risen}

    def is_over(self, phase: PhaseConfig) -> bool:
        """Whether the current phase, whose configuration is `phase`, has ended."""
        waited = self.epochs - max(self.best_epoch, self.before_phase)
        stopped = phase.early_stopping_epochs is not None and waited >= phase.early_stopping_epochs
        return stopped or self.epochs - self.before_phase >= phase.epochs


class Facts(BaseModel):
    """The checkpoint's JSON: `identity` stands for the run's configuration; with a different one, fine-tuning starts over."""

    identity: str
    state: FinetuneState


class Variable(Protocol):
    """The part of a Keras variable that the checkpoint needs; `np.array` also accepts it."""

    def assign(self, value: npt.NDArray[Any]) -> Any:
        """Sets the value."""
        ...


class Optimizer(Protocol):
    """The part of a Keras optimiser that the checkpoint needs."""

    @property
    def variables(self) -> Sequence[Variable]:
        """Momentum and step count variables."""
        ...


class Checkpoint:
    """Reads and writes checkpoint.npz: `facts` (JSON text), and the arrays `weight_N`, `best_N` and `optimizer_N`, numbered
    from 0 in the order of the variables. Written atomically."""

    def __init__(self, folder: Path, weights: Sequence[Variable], identity: str) -> None:
        self._path = folder / CHECKPOINT
        self._identity = identity
        self._weights = weights
        self._best: list[npt.NDArray[Any]] = []
        self._optimizer: list[npt.NDArray[Any]] | None = None

    def mark_best(self) -> None:
        """Keeps the current weights as the best ones."""
        self._best = [np.array(variable) for variable in self._weights]

    def restore_best(self) -> None:
        """Loads the best weights into the network."""
        for variable, value in zip(self._weights, self._best, strict=True):
            variable.assign(value)

    def save(self, state: FinetuneState, optimizer: Optimizer | None) -> None:
        """Writes weights, best weights, the optimiser's variables and the state."""
        facts = json.dumps(Facts(identity=self._identity, state=state).model_dump())
        arrays: dict[str, npt.NDArray[Any]] = {"facts": np.array(facts)}
        kept = optimizer.variables if optimizer else []
        for name, values in (("weight", self._weights), ("best", self._best), ("optimizer", kept)):
            arrays |= {f"{name}_{number}": np.array(value) for number, value in enumerate(values)}
        try:
            with atomic_path(self._path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except HeadhuntError as error:
            before = state.epochs - 1
            kept_too = f"the checkpoint of epoch {before} is intact; rerun the same command to resume from there"
            raise HeadhuntError(
                f"{error} Nothing else is lost: {kept_too if before >= 0 else 'no epoch was completed'}."
            ) from error

    def load(self, journal: Journal) -> FinetuneState | None:
        """Restores a checkpoint's weights and returns its state; None if there is none with this identity. HeadhuntError if it is
        damaged."""
        if not self._path.exists():
            return None
        try:
            with self._path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                facts = Facts.model_validate(json.loads(str(arrays["facts"])))
                if facts.identity != self._identity:
                    journal.log("The existing checkpoint belongs to another configuration; starting over.")
                    return None
                weights = [arrays[f"weight_{number}"] for number in range(len(self._weights))]
                self._best = [arrays[f"best_{number}"] for number in range(len(self._weights))]
                count = sum(name.startswith("optimizer_") for name in arrays.files)
                self._optimizer = [arrays[f"optimizer_{number}"] for number in range(count)] or None
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise HeadhuntError(
                f"{relative(self._path)} is damaged ({str(error).splitlines()[0]}). Delete it to fine-tune from epoch 0."
            ) from None
        for variable, value in zip(self._weights, weights, strict=True):
            variable.assign(value)
        journal.log(f"Resuming after epoch {facts.state.epochs}.")
        return facts.state

    def load_optimizer(self, optimizer: Optimizer) -> None:
        """Restores the checkpoint's optimiser variables, once: later phases have their own optimiser."""
        if self._optimizer is not None:
            for variable, value in zip(optimizer.variables, self._optimizer, strict=True):
                variable.assign(value)
            self._optimizer = None

    def forget_optimizer(self) -> None:
        """Discards the optimiser variables: the next phase starts with a new optimiser."""
        self._optimizer = None
