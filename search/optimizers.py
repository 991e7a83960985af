"""The optimisers that a trial can train with."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Field

from features.runtime.section import Section


class OptimizerConfig(Section):
    """Base of all optimisers; the learning rate belongs to the schedule."""

    @property
    def decay(self) -> float:
        """Decoupled weight decay: each step subtracts rate × decay × weight from every weight."""
        return 0.0

    @abstractmethod
    def build(self) -> Any:
        """The Keras optimiser without weight decay and with a learning rate of 0, which the schedule replaces at every step."""


class Adam(OptimizerConfig):
    """Kingma and Ba, 2015."""

    kind: Literal["adam"] = "adam"

    def build(self) -> Any:
        import keras

        return keras.optimizers.Adam(0.0)


class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    kind: Literal["adamw"] = "adamw"
    weight_decay: float = Field(4e-3, ge=0, le=10)

    @property
    def decay(self) -> float:
        return self.weight_decay

    def build(self) -> Any:
        import keras

        return keras.optimizers.Adam(0.0)


class SGD(OptimizerConfig):
    """Stochastic gradient descent with Nesterov momentum."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)

    def build(self) -> Any:
        import keras

        return keras.optimizers.SGD(0.0, momentum=self.momentum, nesterov=self.momentum > 0)


class RMSprop(OptimizerConfig):
    """Tieleman and Hinton, 2012."""

    kind: Literal["rmsprop"] = "rmsprop"

    def build(self) -> Any:
        import keras

        return keras.optimizers.RMSprop(0.0)


class LBFGS(OptimizerConfig):
    """L-BFGS on all clean photos at once, to convergence: the solver of the linear probe, never drawn by a space.

    `folds` is the number of cross-validation folds over the training photos that choose the head's L2; with 0, the head's own
    `l2` is used.
    """

    kind: Literal["lbfgs"] = "lbfgs"
    folds: int = Field(3, ge=0, le=10)

    def build(self) -> Any:
        raise TypeError("L-BFGS takes no steps over batches; search.population.probing solves with it")


Optimizer = Annotated[Adam | AdamW | SGD | RMSprop, Field(discriminator="kind")]
"""Optimisers that a space draws, and that networks are fine-tuned with."""

TrialOptimizer = Annotated[Adam | AdamW | SGD | RMSprop | LBFGS, Field(discriminator="kind")]
"""Optimisers that a trial may have been trained with."""

OPTIMIZERS: dict[str, type[OptimizerConfig]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD, "rmsprop": RMSprop}
"""Optimisers that a space can draw, by kind."""
