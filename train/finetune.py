"""The full augmented run: resumable after every epoch, with the history of an undisturbed one."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from features.atomic import atomic_path
from features.augment import AugmentationPolicy, Augmenter
from features.command import log
from features.errors import HeadhuntError
from search.heads import HeadConfig
from train.config import FinetuneConfig
from train.evaluate import measure, predict, softmax
from train.photos import Photos, augmented_epoch


@dataclass
class Progressed:
    """What an epoch leaves behind besides weights."""

    best_epoch: int = 0
    best_accuracy: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Finetuned:
    """The result: the epoch whose weights the network has now (0: none was better than the frozen network), how many ran, and
    the seconds of those that an earlier process ran."""

    best_epoch: int
    epochs: int
    earlier_seconds: float


def finetune(
    network: Any,
    head: HeadConfig,
    config: FinetuneConfig,
    policy: AugmentationPolicy,
    clean_share: float,
    train: Photos,
    val: Photos,
    folder: Path,
    identity: str,
) -> Finetuned:
    """Trains the network's trainable layers and leaves it with the weights of the best validation accuracy.

    Writes history.csv after every epoch and goes on from checkpoint.npz when it was written for the same `identity`. Raises
    HeadhuntError when the loss is not finite; the checkpoint before it is kept.
    """
    import keras

    classes = network.output.shape[-1]
    steps_per_epoch = -(-len(train) // config.batch_size)
    schedule = config.followed
    smoothing = head.label_smoothing if config.label_smoothing is None else config.label_smoothing
    _penalise(network, head)
    network.compile(
        optimizer=keras.optimizers.Adam(schedule.keras_rate(steps_per_epoch, config.epochs)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing),
        metrics=["accuracy"],
        jit_compile="auto" if keras.backend.backend() == "jax" else False,
    )
    network.optimizer.build(network.trainable_variables)
    augment = Augmenter(policy)
    checkpoint = _Checkpoint(folder / "checkpoint.npz", network, identity)
    state = checkpoint.load()
    earlier_seconds = sum(row["seconds"] for row in state.history) if state else 0.0
    if state is None:
        state = Progressed()
        _validate(network, val, state, None, 0.0, config.batch_size)
        state.best_accuracy = state.history[0]["val_accuracy"]
        checkpoint.mark_best()
        checkpoint.save(state)
        _write_history(folder, state)
        _say(state, config)
    while len(state.history) <= config.epochs and not _stopped(state, config):
        epoch = len(state.history) - 1
        started = time.monotonic()
        _seed_dropout(network, config.seed, epoch)
        data = augmented_epoch(train, augment, clean_share, epoch, config.seed, config.batch_size, classes)
        val_losses = [row["val_loss"] for row in state.history[1:]]
        rates = schedule.rates_of_epoch(epoch, steps_per_epoch, config.epochs, val_losses)
        last_rate = float(str(rates[-1]))  # 1e-05, not the 9.999999747378752e-06 that float32 is in float64
        callbacks = schedule.keras_callbacks(steps_per_epoch, config.epochs, val_losses)
        fitted, bad_step = _fit(network, data, epoch, config.epochs, steps_per_epoch, callbacks)
        if bad_step:
            where = f"at step {bad_step} of {steps_per_epoch} of epoch {epoch + 1}"
            raise _not_finite("the loss", where, float(rates[bad_step - 1]), config, epoch, folder)
        fitted["learning_rate"] = last_rate
        _validate(network, val, state, fitted, time.monotonic() - started, config.batch_size)
        if not math.isfinite(state.history[-1]["val_loss"]):
            raise _not_finite("the validation loss", f"after epoch {epoch + 1}", last_rate, config, epoch, folder)
        if state.history[-1]["val_accuracy"] > state.best_accuracy:
            state.best_epoch, state.best_accuracy = epoch + 1, state.history[-1]["val_accuracy"]
            checkpoint.mark_best()
        checkpoint.save(state)
        _write_history(folder, state)
        _say(state, config)
    checkpoint.restore_best()
    return Finetuned(state.best_epoch, len(state.history) - 1, earlier_seconds)


def _not_finite(what: str, where: str, rate: float, config: FinetuneConfig, kept: int, folder: Path) -> HeadhuntError:
    key = "train.finetune.schedule.learning_rate" if config.schedule else "train.finetune.learning_rate"
    return HeadhuntError(
        f"trial {folder.name}: {what} is not finite {where} (learning rate {rate:.3g}). Lower `{key}`. The weights and the "
        f"history up to epoch {kept} are kept in {folder}."
    )


def _fit(
    network: Any, data: Any, epoch: int, epochs: int, steps: int, callbacks: list[Any]
) -> tuple[dict[str, float], int]:
    """One epoch of Keras's fit, counted from 0; gives loss and accuracy, and the first step (from 1) whose loss is not finite,
    where it ends: 0 when there is none."""
    import keras

    title = f"epoch {epoch + 1}/{epochs}"
    progress = Progress(
        TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.3f}"), TimeRemainingColumn(),
        console=log, transient=True, disable=not log.is_terminal,
    )  # fmt: skip

    class Steps(keras.callbacks.Callback):  # type: ignore[misc]
        bad = 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            mean = float((logs or {})["loss"])  # of the steps so far
            progress.update(bar, completed=batch + 1, loss=mean)
            if not math.isfinite(mean) and not self.bad:
                self.bad = batch + 1
                self.model.stop_training = True

    with progress:
        bar, watch = progress.add_task("", total=steps, loss=math.nan), Steps()
        history = network.fit(
            data, initial_epoch=epoch, epochs=epoch + 1, verbose=0, shuffle=False, callbacks=[watch, *callbacks]
        ).history
    return {"loss": float(history["loss"][0]), "accuracy": float(history["accuracy"][0])}, watch.bad


def _validate(
    network: Any, val: Photos, state: Progressed, fitted: dict[str, float] | None, seconds: float, batch_size: int
) -> None:
    """Appends a row to the history; epoch 0 is the network before any fine-tuning."""
    started = time.monotonic()
    metrics = measure(softmax(predict(network, val, batch_size)), val.labels)
    row = {
        "epoch": float(len(state.history)),
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


def _stopped(state: Progressed, config: FinetuneConfig) -> bool:
    waited = len(state.history) - 1 - state.best_epoch
    return config.early_stopping_epochs is not None and waited >= config.early_stopping_epochs


def _penalise(network: Any, head: HeadConfig) -> None:
    """The trial's L2 penalty on the head's kernels, in the loss alone: the saved model knows nothing of it."""
    import keras

    for layer in network.get_layer("head").layers:
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.regularizer = keras.regularizers.L2(head.l2) if head.l2 else None


def _seed_dropout(network: Any, seed: int, epoch: int) -> None:
    """Dropout's draws (the head's, and the backbone's own) are a function of (seed, epoch, layer), not of those before."""
    generators = [variable for variable in network.non_trainable_variables if variable.name == "seed_generator_state"]
    for number, generator in enumerate(generators):
        generator.assign(np.array([(seed * 1000 + number) % 2**32, epoch], np.uint32))


def _write_history(folder: Path, state: Progressed) -> None:
    names = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_top5_accuracy", "learning_rate", "seconds"]
    table = pd.DataFrame(state.history, columns=names).astype({"epoch": int})
    with atomic_path(folder / "history.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _say(state: Progressed, config: FinetuneConfig) -> None:
    row = state.history[-1]
    epoch = int(row["epoch"])
    trained = (
        f"loss {row['loss']:.3f}, accuracy {row['accuracy']:.3f}, rate {row['learning_rate']:.1e}; "
        if epoch
        else "frozen; "
    )
    mark = " (best)" if epoch == state.best_epoch else ""
    log.print(
        f"  epoch {epoch}/{config.epochs}: {trained}val loss {row['val_loss']:.3f}, val accuracy "
        f"{row['val_accuracy']:.4f}{mark}, {row['seconds']:.0f} s"
    )


class _Checkpoint:
    """Everything that changes during fine-tuning, in one npz file, written atomically."""

    def __init__(self, path: Path, network: Any, identity: str) -> None:
        self._path = path
        self._identity = identity
        head = network.get_layer("head")
        trained = {id(variable) for variable in network.trainable_variables}
        self._weights = [*network.trainable_variables, *(v for v in head.weights if id(v) not in trained)]
        self._optimizer = network.optimizer
        self._best: list[npt.NDArray[Any]] = []

    def mark_best(self) -> None:
        """Keeps the weights of now as the best ones."""
        self._best = [np.array(variable) for variable in self._weights]

    def restore_best(self) -> None:
        """Gives the network its best weights."""
        for variable, value in zip(self._weights, self._best, strict=True):
            variable.assign(value)

    def save(self, state: Progressed) -> None:
        """Writes weights, best weights, the optimiser's variables and the state."""
        facts = json.dumps({"identity": self._identity, "state": asdict(state)})
        arrays = {"facts": np.array(facts)}
        for name, values in (("weight", self._weights), ("best", self._best), ("optimizer", self._optimizer.variables)):
            arrays |= {f"{name}_{number}": np.array(value) for number, value in enumerate(values)}
        try:
            with atomic_path(self._path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except HeadhuntError as error:
            before = len(state.history) - 2
            kept = f"the checkpoint of epoch {before} is whole, and the same command goes on from there"
            raise HeadhuntError(
                f"{error} Nothing else is lost: {kept if before >= 0 else 'no epoch had ended'}."
            ) from error

    def load(self) -> Progressed | None:
        """Puts a checkpoint back; None when there is none for this identity."""
        if not self._path.exists():
            return None
        with np.load(self._path, allow_pickle=False) as arrays:
            facts = json.loads(str(arrays["facts"]))
            if facts["identity"] != self._identity:
                log.print("The checkpoint there belongs to another configuration; starting anew.", style="yellow")
                return None
            for name, variables in (("weight", self._weights), ("optimizer", self._optimizer.variables)):
                for number, variable in enumerate(variables):
                    variable.assign(arrays[f"{name}_{number}"])
            self._best = [arrays[f"best_{number}"] for number in range(len(self._weights))]
        state = Progressed(**facts["state"])
        log.print(f"Going on after epoch {len(state.history) - 1}.")
        return state
