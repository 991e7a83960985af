"""What the compiled program of a trial depends on, and which trials can share one."""

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

    Units that are there for the roundness of the shape have zeros for weights. Every activation of HeadConfig gives 0 for 0, so
    that they get no gradient and stay zero: what the head computes is what it computes without them.
    """
    head, optimizer = config.head, config.optimizer
    standard: dict[str, Any] = {"dropout": 0.5 if head.dropout else 0.0, "l2": 0.0, "label_smoothing": 0.0}
    if not head.units:
        standard |= {"activation": "relu", "batch_norm": False}  # they belong to hidden layers
    head = head.model_copy(update={**standard, "units": tuple(map(_round_width, head.units))})
    if isinstance(optimizer, AdamW):
        optimizer = Adam()  # weight decay is a number that the program is given
    return Structure(head, optimizer, config.batch_size, config.features.parts)


def chunks(
    configs: Sequence[TrialConfig], at_most: int, width_of: Callable[[TrialConfig], int], classes: int
) -> list[list[int]]:
    """Positions of trials that can train together: by structure, in pieces of at most `at_most`; those that take longest first,
    so that workers end at about the same time. `width_of` says how many features a trial sees.

    Neither the pieces nor their order depend on anything but the arguments.
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
    """About what an epoch of a trial takes, in units of its own: products grow with the weights, and the optimiser's traffic is
    that of another 32 images in every step."""
    widths = [features, *config.head.units, classes]
    weights: int = sum(map(mul, widths, widths[1:]))
    return weights * (1 + 32 / config.batch_size)


def _round_width(units: int) -> int:
    """Up to 64 a power of two, then a multiple of 64: a range of 64 to 512 units has 8 widths, of which few are much too wide."""
    return power_of_two(units) if units <= 64 else -(-units // 64) * 64


def power_of_two(least: int) -> int:
    """The smallest power of two that is not below `least`."""
    return 1 << (least - 1).bit_length()
