"""Pooling of a network's maps: its parts by name, and the columns of a cached record that each part fills."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from features.runtime.errors import UsageError

WIDEST = 256
"""Most channels for a covariance: 256 channels give 32,896 numbers."""

POWERS = (0.1, 6.0)
"""Range of the power of `gem`. Larger powers underflow the smallest values in float32 and give NaN gradients."""

ALLOWED = (
    f"none, or parts joined by +: avg, max, gem:POWER ({POWERS[0]:g} to {POWERS[1]:g}), covariance:CHANNELS (2 to {WIDEST}), "
    "e.g. avg+max+covariance:64"
)

Layout = tuple[tuple[str, int], ...]
"""The parts of a record in order, as (name, number of columns). With several maps, each name occurs once per map."""


@dataclass(frozen=True)
class Part:
    """One way to pool a map (batch, h, w, channels). `number` is the power of `gem` or the number of channels of `covariance`."""

    kind: Literal["avg", "max", "gem", "covariance"]
    number: float = 0

    @property
    def name(self) -> str:
        """The name in a configuration: `avg`, `gem:3`, `covariance:64`."""
        return f"{self.kind}:{self.number:g}" if self.number else self.kind

    def components(self, channels: int) -> int:
        """The number of channels of a covariance: at most those of the map."""
        return min(int(self.number), channels)

    def width(self, channels: int) -> int:
        """The number of features from a map with this many channels."""
        if self.kind != "covariance":
            return channels
        kept = self.components(channels)
        return kept * (kept + 1) // 2


def parse_pooling(text: str) -> tuple[Part, ...]:
    """The parts of a pooling in order; empty for `none`. Raises ValueError, saying what is allowed, for anything else.

    `avg+max+covariance:64` → (Part("avg"), Part("max"), Part("covariance", 64))
    """
    if text.strip() == "none":
        return ()
    parts = tuple(_parse_part(name) for name in text.split("+"))
    if len(set(parts)) < len(parts):
        raise ValueError(f"duplicate part in {text}; allowed: {ALLOWED}")
    return parts


def _parse_part(name: str) -> Part:
    kind, colon, digits = name.strip().partition(":")
    try:
        match kind:
            case "avg" | "max" if not colon:
                return Part(kind)
            case "gem" if POWERS[0] <= (power := float(f"{float(digits):g}")) <= POWERS[1]:  # rounded as in `Part.name`
                return Part("gem", power)
            case "covariance" if digits.isdecimal() and 2 <= (channels := int(digits)) <= WIDEST:
                return Part("covariance", channels)
    except ValueError:
        pass
    raise ValueError(f"allowed: {ALLOWED}")


def pooling_name(parts: Iterable[Part]) -> str:
    """The name of a pooling in a configuration."""
    return "+".join(part.name for part in parts) or "none"


def layout(pooling: str, channels: Sequence[int]) -> Layout:
    """The parts of a record that pools maps with these numbers of channels, map after map. Empty for unpooled maps."""
    return tuple((part.name, part.width(count)) for count in channels for part in parse_pooling(pooling))


def columns_of(record: Layout, wanted: str, key: str) -> list[slice]:
    """The columns of the wanted parts (e.g. `avg+max`), in the record's order, as few slices as possible.

    Raises UsageError, naming `key`, for a part that is not in the record.
    """
    names = {part.name for part in parse_pooling(wanted)}
    cached = list(dict.fromkeys(name for name, _ in record))
    if not names or not names.issubset(cached):
        raise UsageError(
            f"{key}: received {wanted!r}; the cache has {', '.join(cached) if cached else 'unpooled maps, which have no parts'}. "
            "Choose from these, joined by +, or change `features.pooling` and run `headhunt features cache`."
        )
    slices: list[slice] = []
    start = 0
    for name, width in record:
        if name in names:
            joins = bool(slices) and slices[-1].stop == start
            slices.append(slice(slices.pop().start if joins else start, start + width))
        start += width
    return slices
