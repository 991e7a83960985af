"""Trains a hypermodel's trial: Keras's own `fit` on JAX, epoch by epoch on the cached features, one model at a time.

The model keeps its own optimiser, loss and metrics. Views and photo order are those of every other trial of the study; batches
have the trial's size, with a smaller last one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from features.cache.views import order_of_epoch
from features.runtime.interrupts import raise_if_cancelled
from search.driver.worklog import this_worker
from search.hypermodels.function import CombinationError
from search.hypermodels.model import LABEL_FORMS, build_model, check_promotable, choose_label_form, model_weights
from search.population.sources import Features, load_features
from search.population.task import Task
from search.ranking import Score
from search.trial import EpochMetrics, TrialResult, TrialState, WorkSpan

EVALUATED = 1024
"""Validation photos in a batch."""


def train_hypermodel(task: Task) -> list[TrialResult]:
    """Trains the task's single trial from its state to the task's last epoch. Idempotent: the same task gives the same result.

    The trial ends with `failure` set if the combination gives no model, if the model cannot be trained or promoted, or if the
    loss is not finite.
    """
    import keras

    began, started = time.time(), time.monotonic()
    (config,), (before,) = task.configs, task.states
    assert config.hypermodel is not None and task.folder is not None
    features = _features(task.sources)
    state = replace(before, curves=list(before.curves)) if before else TrialState([], [], [], [], [])
    had, weights = len(state.curves), {}
    keras.backend.clear_session()
    try:
        shape = features.val.shape[1:]
        model = build_model(config.hypermodel, task.folder, shape, features.classes, config.seed)
        if before is None:
            check_promotable(config.hypermodel, model, shape)
        trained = _Trained(model, task, features, choose_label_form(model, shape, features.classes))
        trained.go_on(state, before is not None)
        weights = _best_weights(model, state) if state.best_epoch else {}
    except CombinationError as error:
        state.failure = str(error)
    span, seconds = WorkSpan(this_worker(), began, len(state.curves) - had), time.monotonic() - started
    curves, best = tuple(state.curves), state.best_epoch
    return [TrialResult(curves, best, weights, state.failure, seconds, state=state, span=span)]


@dataclass(frozen=True)
class _Trained:
    """A model in training; `labels` names the form of labels that its loss accepts (see LABEL_FORMS)."""

    model: Any
    task: Task
    features: Features
    labels: str

    def go_on(self, state: TrialState, was_begun: bool) -> None:
        """Trains to the task's last epoch, or until the loss is not finite, and updates the state."""
        model = self.model
        model.optimizer.build(model.trainable_variables)
        if was_begun:
            _assign(model, state)
        for epoch in range(len(state.curves), self.task.until):
            raise_if_cancelled()
            metrics = self._epoch(epoch)
            if not np.isfinite([metrics.loss, metrics.val_loss]).all():
                state.failure = (
                    f"the loss is not finite after epoch {epoch + 1} (learning rate {metrics.learning_rate:.3g})"
                )
                break
            state.curves.append(metrics)
            best = state.curves[state.best_epoch - 1]
            score = Score.of_epoch(self.task.objective, metrics)
            if not state.best_epoch or score < Score.of_epoch(self.task.objective, best):
                state.best_epoch = epoch + 1
                state.best_trainable, state.best_non_trainable = _values(model)
        state.trainable, state.non_trainable = _values(model)
        state.optimizer = [np.asarray(variable) for variable in model.optimizer.variables]

    def _epoch(self, epoch: int) -> EpochMetrics:
        model, features, config = self.model, self.features, self.task.configs[0]
        labels, images = features.val_labels, len(features.train_labels)
        rows = order_of_epoch(epoch, images, self.task.seed)
        copies = features.rows_of_epoch(config.views, epoch, self.task.seed)[rows]
        form = LABEL_FORMS[self.labels]
        batches = partial(_batches_class(), lambda labels: form(labels, features.classes))
        train = batches(features.train, (copies, rows), features.train_labels[rows], config.batch_size)
        val = batches(features.val, (np.arange(len(labels)),), labels, EVALUATED)
        try:
            history = model.fit(train, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0).history
            measured = model.evaluate(val, verbose=0, return_dict=True)
            outputs = model.predict(val, verbose=0)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            raise CombinationError(f"it cannot be trained: {type(error).__name__}: {reason}") from error
        better = (outputs > outputs[np.arange(len(labels)), labels][:, None]).sum(-1)
        named = _accuracies(model)
        accuracy = next((values[-1] for name, values in history.items() if name in named), float("nan"))
        return EpochMetrics(
            epoch + 1,
            float(history["loss"][-1]),
            float(accuracy),
            float(measured["loss"]),
            float((outputs.argmax(-1) == labels).mean()),
            float((better < 5).mean()),
            float(np.asarray(model.optimizer.learning_rate)),
        )


@lru_cache(maxsize=1)
def _batches_class() -> Any:
    import keras

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        """Rows of stored features as float32 batches. (For plain arrays, Keras would import TensorFlow to slice them.)"""

        def __init__(self, form: Any, features: Any, rows: Any, labels: Any, batch_size: int) -> None:
            super().__init__()
            self._features, self._rows, self._labels = features, rows, labels
            self._form, self._batch_size = form, batch_size

        def __len__(self) -> int:
            return -(-len(self._labels) // self._batch_size)

        def __getitem__(self, number: int) -> tuple[Any, Any]:
            part = slice(number * self._batch_size, (number + 1) * self._batch_size)
            x = self._features[tuple(rows[part] for rows in self._rows)].astype(np.float32)
            return x, self._form(self._labels[part])

    return Batches


def _accuracies(model: Any) -> set[str]:
    """The names under which a history lists the model's accuracy metrics."""
    from keras import metrics as known

    kinds = (known.Accuracy, known.BinaryAccuracy, known.CategoricalAccuracy, known.SparseCategoricalAccuracy)
    inside = [each for outer in model.metrics for each in getattr(outer, "metrics", None) or [outer]]
    names = {each.name for each in inside if isinstance(each, kinds)}
    outputs = (
        getattr(model, "output_names", None) or []
    )  # a functional model's; dictionary outputs are already in the names
    return {*names, *(f"{output}_{name}" for output in outputs for name in names)}


def _values(model: Any) -> tuple[list[Any], list[Any]]:
    return (
        [np.asarray(variable) for variable in model.trainable_variables],
        [np.asarray(variable) for variable in model.non_trainable_variables],
    )


def _assign(model: Any, state: TrialState) -> None:
    for variables, values in (
        (model.trainable_variables, state.trainable),
        (model.non_trainable_variables, state.non_trainable),
        (model.optimizer.variables, state.optimizer),
    ):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _best_weights(model: Any, state: TrialState) -> dict[str, npt.NDArray[np.float32]]:
    """The weights of the best epoch by path, `<layer>.<weight>`, in the order of `model_weights`."""
    kept = {id(variable) for variable in model_weights(model)}
    named = zip(
        [*model.trainable_variables, *model.non_trainable_variables],
        [*state.best_trainable, *state.best_non_trainable],
        strict=True,
    )
    return {variable.path.replace("/", "."): value for variable, value in named if id(variable) in kept}


_features = lru_cache(maxsize=1)(load_features)
