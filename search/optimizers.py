"""The optimisers that a trial may train with."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Field

from features.runtime.section import Section


class OptimizerConfig(Section):
    """What every optimiser has; the learning rate belongs to the schedule."""

    @property
    def decay(self) -> float:
        """Decoupled weight decay: each step takes rate × decay × weight off every weight."""
        return 0.0

    @abstractmethod
    def build(self) -> Any:
        """The Keras optimiser without its weight decay and with a rate of 0, which the schedule replaces at every step."""


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
    """L-BFGS on all clean photos at once, to convergence: what the linear probe is trained with, and nothing that a space draws.

    `folds` is for the L2 of the head: over so many folds of the training photos cross-validation chooses it; with 0, the head's
    own `l2` holds.
    """

    kind: Literal["lbfgs"] = "lbfgs"
    folds: int = Field(3, ge=0, le=10)

    def build(self) -> Any:
        raise TypeError("L-BFGS takes no steps over batches; search.probe solves with it")


Optimizer = Annotated[Adam | AdamW | SGD | RMSprop, Field(discriminator="kind")]
"""What a space draws, and what a network is fine-tuned with."""

TrialOptimizer = Annotated[Adam | AdamW | SGD | RMSprop | LBFGS, Field(discriminator="kind")]
"""What a trial may have been trained with."""

OPTIMIZERS: dict[str, type[OptimizerConfig]] = {"adam": Adam, "adamw": AdamW, "sgd": SGD, "rmsprop": RMSprop}
"""Every optimiser by its kind."""
