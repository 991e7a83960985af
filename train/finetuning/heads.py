"""The head of a trial, from a space or a hypermodel, as the full network's part after the backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.runtime.errors import HeadhuntError
from search.heads import HeadConfig, Weights, build_head, set_head_weights
from search.hypermodels.function import CombinationError
from search.hypermodels.model import as_head, build_model, set_model_weights
from search.trial import TrialConfig


@dataclass(frozen=True)
class TrialHead:
    """`build(feature_shape)` returns a new model from features (batch, *feature_shape) to logits (batch, classes), with its
    weights.

    In training, `l2` is the penalty on the kernels of its dense layers, None if its layers have their own penalties, and
    `label_smoothing` is part of the loss.
    """

    build: Callable[[tuple[int, ...]], Any]
    l2: float | None = None
    label_smoothing: float = 0.0


def space_head(
    head: HeadConfig,
    classes: int,
    moments: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    weights: Weights | None = None,
) -> TrialHead:
    """A head of `search.space`; without `weights`, they are drawn."""

    def build(shape: tuple[int, ...]) -> Any:
        model = build_head(head, shape, classes, moments)
        if weights is not None:
            set_head_weights(model, weights)
        return model

    return TrialHead(build, head.l2, head.label_smoothing)


def trial_head(
    config: TrialConfig,
    folder: Path,
    sample: npt.NDArray[np.float32],
    classes: int,
    moments: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    weights: Weights,
) -> TrialHead:
    """The head of a trial with its weights; `folder` may contain the module of a hypermodel, `sample` (n, *feature_shape) are
    some of the features that it was trained on. HeadhuntError if a hypermodel builds a different model than in the search."""
    choice = config.hypermodel
    if choice is None:
        return space_head(config.head, classes, moments, weights)

    def build(shape: tuple[int, ...]) -> Any:
        try:
            model = build_model(choice, folder, shape, classes, config.seed)
            set_model_weights(model, weights)
            return as_head(model, shape, sample)
        except (CombinationError, HeadhuntError) as error:
            raise HeadhuntError(
                f"search.hypermodel: the head of {choice.function} cannot be promoted: {error}."
            ) from error

    return TrialHead(build)
