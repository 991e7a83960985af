"""What a trial's compiled program depends on, and which trials can share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import mul
from typing import Any, NamedTuple

from search.heads import HeadConfig
from search.optimizers import Adam, AdamW, OptimizerConfig
from search.trial import TrialConfig


class Structure(NamedTuple):
    """What a compiled program depends on; two trials with equal structures run the same program."""

    head: HeadConfig
    optimizer: OptimizerConfig
    batch_size: int
    parts: str | None = None


def structure_of(config: TrialConfig) -> Structure:
    """The structure of a trial: its configuration with everything that is data set to a standard value, and widths rounded up.

    The padding units have zero weights. Every activation of HeadConfig maps 0 to 0, so that they get no gradient and stay zero:
    the head computes the same as without them.
    """
    head, optimizer = config.head, config.optimizer
    standard: dict[str, Any] = {"dropout": 0.5 if head.dropout else 0.0, "l2": 0.0, "label_smoothing": 0.0}
    if not head.units:
        standard |= {"activation": "relu", "batch_norm": False}  # these apply to hidden layers only
    head = head.model_copy(update={**standard, "units": tuple(map(_round_width, head.units))})
    if isinstance(optimizer, AdamW):
        optimizer = Adam()  # weight decay is an input of the program
    return Structure(head, optimizer, config.batch_size, config.features.parts)


def chunks(
    configs: Sequence[TrialConfig], at_most: int, width_of: Callable[[TrialConfig], int], classes: int
) -> list[list[int]]:
    """Indices of trials that can train together: grouped by structure, in pieces of at most `at_most`, longest first, so that
    workers finish at about the same time. `width_of` gives the number of features that a trial sees.

    The pieces and their order depend only on the arguments.
    """
    groups: dict[Structure, list[int]] = {}
    for position, config in enumerate(configs):
        groups.setdefault(structure_of(config), []).append(position)

    def effort(piece: list[int]) -> float:
        config = configs[piece[0]]
        return _effort(config, width_of(config), classes)

    pieces = [group[n : n + at_most] for group in groups.values() for n in range(0, len(group), at_most)]
    return sorted(pieces, key=lambda piece: (-len(piece) * effort(piece), piece[0]))


def _effort(config: TrialConfig, features: int, classes: int) -> float:
    """Approximate cost of an epoch in arbitrary units: matrix products grow with the number of weights, and the optimiser's
    memory traffic costs as much as another 32 photos per step."""
    widths = [features, *config.head.units, classes]
    weights: int = sum(map(mul, widths, widths[1:]))
    return weights * (1 + 32 / config.batch_size)


def _round_width(units: int) -> int:
    """Rounds up to a power of two, above 64 to a multiple of 64: a range of 64 to 512 units has 8 widths with little padding."""
    return power_of_two(units) if units <= 64 else -(-units // 64) * 64


def power_of_two(least: int) -> int:
    """The smallest power of two that is at least `least`."""
    return 1 << (least - 1).bit_length()
