"""The full augmented run, phase by phase: resumable after every epoch, with the history of an undisturbed one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.config import FeaturesConfig
from features.runtime.atomic import atomic_path
from features.runtime.errors import HeadhuntError
from search.metric import Metric
from search.ranking import Score
from search.schedules.keras_form import keras_callbacks
from train.config import FinetuneConfig, PhaseConfig
from train.evaluate import Examples, measure, predict, softmax
from train.finetuning.batches import TrainSource, steps_per_epoch, training_epoch
from train.finetuning.heads import TrialHead
from train.finetuning.journal import HISTORY, Journal, Progress
from train.finetuning.model import trainees
from train.finetuning.optimizer import build_optimizer
from train.finetuning.unfreeze import leaves, rate_factors, trained_layers, unfreeze


@dataclass(frozen=True)
class Data:
    """What a network is trained and validated with: photos, or activations of what is frozen in all phases."""

    train: TrainSource
    val: Examples
    are_activations: bool = False


@dataclass
class Progressed:
    """What an epoch leaves behind besides weights; the phase (from 1), and the epochs before it."""

    phase: int = 1
    before_phase: int = 0
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def epochs(self) -> int:
        """Epochs that have ended."""
        return len(self.history) - 1

    def score(self, objective: Metric, epoch: int) -> Score:
        """How good the network was on the validation photos after an epoch."""
        row = self.history[epoch]
        return Score.of(objective, row[objective], row["val_loss"])

    def phases_to_best(self, objective: Metric) -> set[int]:
        """The phases (from 1) that the weights of the best epoch went through: those in which an epoch was the best so far. What
        a phase without one trained was thrown away."""
        scores = [self.score(objective, epoch) for epoch in range(len(self.history))]
        risen = [epoch for epoch in range(1, len(scores)) if scores[epoch] < min(scores[:epoch])]
        return {int(self.history[epoch]["phase"]) for epoch in risen}

    def is_over(self, phase: PhaseConfig) -> bool:
        """Whether the present phase, which is this one, is at its end."""
        waited = self.epochs - max(self.best_epoch, self.before_phase)
        stopped = phase.early_stopping_epochs is not None and waited >= phase.early_stopping_epochs
        return stopped or self.epochs - self.before_phase >= phase.epochs


@dataclass(frozen=True)
class Finetuned:
    """The result: the epoch whose weights the network has now (0: none was better than the frozen network), how many ran, the
    seconds of those that an earlier process ran, and the layers of the backbone that were trained on the way to these weights."""

    best_epoch: int
    epochs: int
    earlier_seconds: float
    unfrozen: list[str]


def finetune(
    network: Any,
    features: FeaturesConfig,
    head: TrialHead,
    config: FinetuneConfig,
    data: Data,
    folder: Path,
    identity: str,
    journal: Journal,
    objective: Metric = "val_accuracy",
) -> Finetuned:
    """Trains the network phase by phase and leaves it with the weights of the epoch that is best by `objective`.

    Each phase begins with the best weights so far. Writes history.csv after every epoch and goes on from checkpoint.npz when it
    was written for the same `identity`. Raises HeadhuntError when the loss is not finite; the checkpoint before it is kept.
    """
    trained = trained_layers(_backbone(network), [phase.unfreeze for phase in config.plan])
    models = trainees(network, features, trained)
    model = models.on_activations if data.are_activations else models.on_photos
    measured = models.on_activations if data.are_activations else network
    _penalise(network, head)
    checkpoint = _Checkpoint(folder / "checkpoint.npz", network, trained, identity)
    state = checkpoint.load(journal)
    earlier_seconds = sum(row["seconds"] for row in state.history) if state else 0.0
    if state is None:
        state = Progressed()
        _validate(measured, data.val, state, None, 0.0, config.batch_size)
        checkpoint.mark_best()
        checkpoint.save(state, None)
        _say(state, config, journal)
    _write_history(folder, state)
    for number in range(state.phase, len(config.plan) + 1):
        if number > state.phase:
            state.phase, state.before_phase = number, state.epochs
            checkpoint.restore_best()
            checkpoint.forget_optimizer()
        phase = config.plan[number - 1]
        run = _Phase(network, model, measured, head, config, objective, data, state, checkpoint, journal, folder)
        if not state.is_over(phase):
            run.train(phase)
    checkpoint.restore_best()
    led = [config.plan[number - 1].unfreeze for number in state.phases_to_best(objective)]
    changed = trained_layers(_backbone(network), led)
    unfrozen = [layer.name for layer in leaves(_backbone(network)) if layer.name in changed]
    return Finetuned(state.best_epoch, state.epochs, earlier_seconds, unfrozen)


@dataclass
class _Phase:
    """One phase, from its next epoch to its end."""

    network: Any
    model: Any
    measured: Any
    head: TrialHead
    config: FinetuneConfig
    objective: Metric
    data: Data
    state: Progressed
    checkpoint: _Checkpoint
    journal: Journal
    folder: Path

    def train(self, phase: PhaseConfig) -> None:
        """Compiles the model for this phase and trains it epoch by epoch; the checkpoint holds every one of them."""
        import keras

        state, config = self.state, self.config
        names = unfreeze(self.network, phase.unfreeze)
        self.measured.predict_function = None  # compiled for what was trained before
        steps = steps_per_epoch(len(self.data.train.labels), config.batch_size)
        weights = self.model.trainable_variables
        optimizer = build_optimizer(phase, rate_factors(self.network, phase.depth_decay), steps, weights)
        smoothing = self.head.label_smoothing if config.label_smoothing is None else config.label_smoothing
        self.model.compile(
            optimizer=optimizer,
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
            metrics=["accuracy"],
            jit_compile="auto" if keras.backend.backend() == "jax" else False,
        )
        self.checkpoint.load_optimizer(optimizer)
        if len(config.plan) > 1:
            self.journal.say(
                f"Phase {state.phase} of {len(config.plan)}: {phase.title} ({len(names)} layers of the backbone)."
            )
        while not state.is_over(phase):
            self._train_epoch(phase, steps)
            self.checkpoint.save(state, optimizer)
            _write_history(self.folder, state)
            _say(state, config, self.journal)

    def _train_epoch(self, phase: PhaseConfig, steps: int) -> None:
        state, config = self.state, self.config
        epoch, own = state.epochs, state.epochs - state.before_phase
        started = time.monotonic()
        _seed_dropout(self.network, config.seed, epoch)
        classes = self.network.output.shape[-1]
        batches = training_epoch(self.data.train, epoch, config.batch_size, classes, config.seed)
        val_losses = [row["val_loss"] for row in state.history[state.before_phase + 1 :]]
        rates = phase.followed.rates_of_epoch(own, steps, phase.epochs, val_losses)
        last_rate = float(str(rates[-1]))  # 1e-05, not the 9.999999747378752e-06 that float32 is in float64
        callbacks = keras_callbacks(phase.followed, steps, phase.epochs, val_losses)
        fitted, bad_step = self._fit(batches, own, Progress(epoch + 1, _total(config), 0, steps, math.nan), callbacks)
        if bad_step:
            where = f"at step {bad_step} of {steps} of epoch {epoch + 1}"
            raise self._not_finite("the loss", where, float(rates[bad_step - 1]))
        fitted["learning_rate"] = last_rate
        _validate(self.measured, self.data.val, state, fitted, time.monotonic() - started, config.batch_size)
        if not math.isfinite(state.history[-1]["val_loss"]):
            state.history.pop()
            raise self._not_finite("the validation loss", f"after epoch {epoch + 1}", last_rate)
        if state.score(self.objective, epoch + 1) < state.score(self.objective, state.best_epoch):
            state.best_epoch = epoch + 1
            self.checkpoint.mark_best()

    def _fit(self, batches: Any, epoch: int, begun: Progress, callbacks: Sequence[Any]) -> tuple[dict[str, float], int]:
        """One epoch of Keras's fit, counted from 0 in its phase; gives loss and accuracy, and the first step (from 1) whose loss
        is not finite, where it ends: 0 when there is none."""
        import keras

        journal = self.journal

        class Steps(keras.callbacks.Callback):  # type: ignore[misc]
            bad = 0

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                mean = float((logs or {})["loss"])  # of the steps so far
                journal.step(begun._replace(step=batch + 1, loss=mean))
                if not math.isfinite(mean) and not self.bad:
                    self.bad = batch + 1
                    self.model.stop_training = True

        watch = Steps()
        history = self.model.fit(
            batches, initial_epoch=epoch, epochs=epoch + 1, verbose=0, shuffle=False, callbacks=[watch, *callbacks]
        ).history
        return {"loss": float(history["loss"][0]), "accuracy": float(history["accuracy"][0])}, watch.bad

    def _not_finite(self, what: str, where: str, rate: float) -> HeadhuntError:
        key = self.config.rate_key(self.state.phase)
        return HeadhuntError(
            f"trial {self.folder.name}: {what} is not finite {where} (learning rate {rate:.3g}). Lower `{key}`. The weights and "
            f"the history up to epoch {self.state.epochs} are kept in {self.folder}."
        )


def _validate(
    model: Any, val: Examples, state: Progressed, fitted: dict[str, float] | None, seconds: float, batch_size: int
) -> None:
    """Appends a row to the history; epoch 0, of phase 0, is the network before any fine-tuning."""
    started = time.monotonic()
    metrics = measure(softmax(predict(model, val, batch_size)), val.labels)
    row = {
        "epoch": float(len(state.history)),
        "phase": float(state.phase if fitted else 0),
        "loss": math.nan,
        "accuracy": math.nan,
        "learning_rate": math.nan,
        **(fitted or {}),
    }
    row |= {
        "val_loss": metrics["loss"],
        "val_accuracy": metrics["accuracy"],
        "val_top5_accuracy": metrics["top5_accuracy"],
    }
    state.history.append({**row, "seconds": round(seconds + time.monotonic() - started, 3)})


def _backbone(network: Any) -> Any:
    return network.get_layer("extractor").get_layer("backbone")


def _total(config: FinetuneConfig) -> int:
    """Epochs of all phases, where none stops early."""
    return sum(phase.epochs for phase in config.plan)


def _penalise(network: Any, head: TrialHead) -> None:
    """The trial's L2 penalty on the head's kernels, in the loss alone: the saved model knows nothing of it."""
    import keras

    if head.l2 is None:
        return
    for layer in network.get_layer("head").layers:
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.regularizer = keras.regularizers.L2(head.l2) if head.l2 else None


def _seed_dropout(network: Any, seed: int, epoch: int) -> None:
    """The head's dropout draws are a function of (seed, epoch, layer), not of those before."""
    generators = [variable for variable in network.non_trainable_variables if variable.name == "seed_generator_state"]
    for number, generator in enumerate(generators):
        generator.assign(np.array([(seed * 1000 + number) % 2**32, epoch], np.uint32))


def _write_history(folder: Path, state: Progressed) -> None:
    measured = ["loss", "accuracy", "val_loss", "val_accuracy", "val_top5_accuracy", "learning_rate", "seconds"]
    table = pd.DataFrame(state.history, columns=["epoch", "phase", *measured]).astype({"epoch": int, "phase": int})
    with atomic_path(folder / HISTORY) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _say(state: Progressed, config: FinetuneConfig, journal: Journal) -> None:
    row = state.history[-1]
    epoch = int(row["epoch"])
    trained = (
        f"loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}, rate {row['learning_rate']:.1e}; "
        if epoch
        else "frozen; "
    )
    mark = " (best)" if epoch == state.best_epoch else ""
    journal.say(
        f"epoch {epoch}/{_total(config)}: {trained}val loss {row['val_loss']:.3f}, val accuracy "
        f"{row['val_accuracy']:.4f}{mark}, {row['seconds']:.0f} s"
    )


class _Checkpoint:
    """Everything that changes during fine-tuning, in one npz file, written atomically."""

    def __init__(self, path: Path, network: Any, trained: set[str], identity: str) -> None:
        self._path = path
        self._identity = identity
        inside = [weight for layer in leaves(_backbone(network)) if layer.name in trained for weight in layer.weights]
        self._weights = [*inside, *network.get_layer("head").weights]
        self._best: list[npt.NDArray[Any]] = []
        self._optimizer: list[npt.NDArray[Any]] | None = None

    def mark_best(self) -> None:
        """Keeps the weights of now as the best ones."""
        self._best = [np.array(variable) for variable in self._weights]

    def restore_best(self) -> None:
        """Gives the network its best weights."""
        for variable, value in zip(self._weights, self._best, strict=True):
            variable.assign(value)

    def save(self, state: Progressed, optimizer: Any | None) -> None:
        """Writes weights, best weights, the optimiser's variables and the state."""
        facts = json.dumps({"identity": self._identity, "state": asdict(state)})
        arrays = {"facts": np.array(facts)}
        kept = optimizer.variables if optimizer else []
        for name, values in (("weight", self._weights), ("best", self._best), ("optimizer", kept)):
            arrays |= {f"{name}_{number}": np.array(value) for number, value in enumerate(values)}
        try:
            with atomic_path(self._path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except HeadhuntError as error:
            before = state.epochs - 1
            kept_too = f"the checkpoint of epoch {before} is whole, and the same command goes on from there"
            raise HeadhuntError(
                f"{error} Nothing else is lost: {kept_too if before >= 0 else 'no epoch had ended'}."
            ) from error

    def load(self, journal: Journal) -> Progressed | None:
        """Puts the weights of a checkpoint back; None when there is none for this identity."""
        if not self._path.exists():
            return None
        with np.load(self._path, allow_pickle=False) as arrays:
            facts = json.loads(str(arrays["facts"]))
            if facts["identity"] != self._identity:
                journal.say("The checkpoint there belongs to another configuration; starting anew.")
                return None
            for number, variable in enumerate(self._weights):
                variable.assign(arrays[f"weight_{number}"])
            self._best = [arrays[f"best_{number}"] for number in range(len(self._weights))]
            names = [name for name in arrays.files if name.startswith("optimizer_")]
            self._optimizer = [arrays[f"optimizer_{number}"] for number in range(len(names))] or None
        known = {each.name for each in fields(Progressed)}  # an earlier version also wrote the best accuracy and loss
        state = Progressed(**{name: value for name, value in facts["state"].items() if name in known})
        journal.say(f"Going on after epoch {state.epochs}.")
        return state

    def load_optimizer(self, optimizer: Any) -> None:
        """Puts the variables of a checkpoint back into the optimiser of the phase that it was written in, once."""
        if self._optimizer is not None:
            for variable, value in zip(optimizer.variables, self._optimizer, strict=True):
                variable.assign(value)
            self._optimizer = None

    def forget_optimizer(self) -> None:
        """The next phase begins with an optimiser of its own."""
        self._optimizer = None
