"""Fine-tuning, phase by phase: resumable after every epoch, with the same history as an uninterrupted run."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from features.config import FeaturesConfig
from features.runtime.errors import HeadhuntError
from features.runtime.log import counted
from search.metric import Metric
from search.schedules.keras_form import keras_callbacks
from train.config import FinetuneConfig, PhaseConfig
from train.evaluate import Examples, measure, predict, softmax
from train.finetuning.batches import TrainSource, steps_per_epoch, training_epoch
from train.finetuning.checkpoint import Checkpoint, FinetuneState
from train.finetuning.heads import TrialHead
from train.finetuning.history import Epoch, write_history
from train.finetuning.journal import Journal, Progress
from train.finetuning.model import trainees
from train.finetuning.optimizer import build_optimizer
from train.finetuning.unfreeze import leaves, rate_factors, trained_layers, unfreeze


@dataclass(frozen=True)
class Data:
    """Training and validation data: photos, or cached activations of the layers frozen in all phases."""

    train: TrainSource
    val: Examples
    are_activations: bool = False


class Fitted(NamedTuple):
    """The training metrics of an epoch, and its last learning rate."""

    loss: float
    accuracy: float
    learning_rate: float


UNTRAINED = Fitted(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Finetuned:
    """The result: the epoch whose weights the network has now (0: none was better than the frozen network), the number of epochs,
    the seconds of those run by earlier processes, and the backbone layers that were trained on the way to these weights."""

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

    Each phase starts from the best weights so far. Writes history.csv after every epoch and resumes from checkpoint.npz if it was
    written for the same `identity`. Raises HeadhuntError if the loss is not finite; the checkpoint before it is kept.
    """
    trained = trained_layers(_backbone(network), [phase.unfreeze for phase in config.plan])
    models = trainees(network, features, trained)
    model = models.on_activations if data.are_activations else models.on_photos
    measured = models.on_activations if data.are_activations else network
    _penalise(network, head)
    changing = [weight for layer in leaves(_backbone(network)) if layer.name in trained for weight in layer.weights]
    checkpoint = Checkpoint(folder, [*changing, *network.get_layer("head").weights], identity)
    state = checkpoint.load(journal)
    earlier_seconds = sum(epoch.seconds for epoch in state.history) if state else 0.0
    if state is None:
        state = FinetuneState(history=[_measured(measured, data.val, config.batch_size, time.monotonic(), 0, 0)])
        checkpoint.mark_best()
        checkpoint.save(state, None)
        _log(state, config, journal)
    write_history(folder, state.history)
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
    state: FinetuneState
    checkpoint: Checkpoint
    journal: Journal
    folder: Path

    def train(self, phase: PhaseConfig) -> None:
        """Compiles the model for this phase and trains it epoch by epoch, with a checkpoint after each."""
        import keras

        state, config = self.state, self.config
        names = unfreeze(self.network, phase.unfreeze)
        self.measured.predict_function = None  # was compiled for the previous phase
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
            self.journal.log(
                f"Phase {state.phase} of {len(config.plan)}: {phase.title} ({counted(len(names), 'layer')} of the backbone)."
            )
        while not state.is_over(phase):
            self._train_epoch(phase, steps)
            self.checkpoint.save(state, optimizer)
            write_history(self.folder, state.history)
            _log(state, config, self.journal)

    def _train_epoch(self, phase: PhaseConfig, steps: int) -> None:
        state, config = self.state, self.config
        epoch, own = state.epochs, state.epochs - state.before_phase
        started = time.monotonic()
        _seed_dropout(self.network, config.seed, epoch)
        classes = self.network.output.shape[-1]
        rates = phase.followed.rates_of_epoch(own, steps, phase.epochs, state.val_losses)
        last_rate = float(str(rates[-1]))  # 1e-05, not 9.999999747378752e-06, its float32 value as float64
        callbacks = keras_callbacks(phase.followed, steps, phase.epochs, state.val_losses)
        begun = Progress(epoch + 1, _total(config), 0, steps, math.nan)
        with training_epoch(self.data.train, epoch, config.batch_size, classes, config.seed) as batches:
            loss, accuracy, bad_step = self._fit(batches, own, begun, callbacks)
        if bad_step:
            where = f"at step {bad_step} of {steps} of epoch {epoch + 1}"
            raise self._not_finite("the loss", where, float(rates[bad_step - 1]))
        fitted = Fitted(loss, accuracy, last_rate)
        done = _measured(self.measured, self.data.val, config.batch_size, started, epoch + 1, state.phase, fitted)
        if not math.isfinite(done.val_loss):
            raise self._not_finite("the validation loss", f"after epoch {epoch + 1}", last_rate)
        if state.add(done, self.objective):
            self.checkpoint.mark_best()

    def _fit(self, batches: Any, epoch: int, begun: Progress, callbacks: Sequence[Any]) -> tuple[float, float, int]:
        """Runs one epoch (counted from 0 within its phase) of Keras's fit; returns loss, accuracy, and the first step (from 1)
        whose loss is not finite, at which it stops, or 0."""
        import keras

        journal = self.journal

        class Steps(keras.callbacks.Callback):  # type: ignore[misc]
            bad = 0

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                mean = float((logs or {})["loss"])  # over the steps so far
                journal.step(begun._replace(step=batch + 1, loss=mean))
                if not math.isfinite(mean) and not self.bad:
                    self.bad = batch + 1
                    self.model.stop_training = True

        watch = Steps()
        history = self.model.fit(
            batches, initial_epoch=epoch, epochs=epoch + 1, verbose=0, shuffle=False, callbacks=[watch, *callbacks]
        ).history
        return float(history["loss"][0]), float(history["accuracy"][0]), watch.bad

    def _not_finite(self, what: str, where: str, rate: float) -> HeadhuntError:
        key = self.config.rate_key(self.state.phase)
        return HeadhuntError(
            f"trial {self.folder.name}: {what} is not finite {where} (learning rate {rate:.3g}). Lower `{key}`. The weights and "
            f"the history up to epoch {self.state.epochs} are kept in {self.folder}."
        )


def _measured(
    model: Any, val: Examples, batch_size: int, started: float, epoch: int, phase: int, fitted: Fitted = UNTRAINED
) -> Epoch:
    """An epoch that started at `started` (monotonic seconds), with the network's current metrics on the validation photos."""
    metrics = measure(softmax(predict(model, val, batch_size)), val.labels)
    return Epoch(
        epoch=epoch,
        phase=phase,
        **fitted._asdict(),
        val_loss=metrics.loss,
        val_accuracy=metrics.accuracy,
        val_top5_accuracy=metrics.top5_accuracy,
        seconds=round(time.monotonic() - started, 3),
    )


def _backbone(network: Any) -> Any:
    return network.get_layer("extractor").get_layer("backbone")


def _total(config: FinetuneConfig) -> int:
    """Total epochs of all phases, if none stops early."""
    return sum(phase.epochs for phase in config.plan)


def _penalise(network: Any, head: TrialHead) -> None:
    """Adds the trial's L2 penalty on the head's kernels to the loss only: the saved model does not contain it."""
    import keras

    if head.l2 is None:
        return
    for layer in network.get_layer("head").layers:
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.regularizer = keras.regularizers.L2(head.l2) if head.l2 else None


def _seed_dropout(network: Any, seed: int, epoch: int) -> None:
    """Makes the head's dropout masks a function of (seed, epoch, layer), independent of earlier draws."""
    generators = [variable for variable in network.non_trainable_variables if variable.name == "seed_generator_state"]
    for number, generator in enumerate(generators):
        generator.assign(np.array([(seed * 1000 + number) % 2**32, epoch], np.uint32))


def _log(state: FinetuneState, config: FinetuneConfig, journal: Journal) -> None:
    done = state.history[-1]
    trained = (
        f"loss {done.loss:.3f}, accuracy {done.accuracy:.3f}, rate {done.learning_rate:.1e}; "
        if done.epoch
        else "frozen; "
    )
    mark = " (best)" if done.epoch == state.best_epoch else ""
    journal.log(
        f"epoch {done.epoch}/{_total(config)}: {trained}val loss {done.val_loss:.3f}, val accuracy "
        f"{done.val_accuracy:.4f}{mark}, {done.seconds:.0f} s"
    )
