"""What a section of the page is made of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from features.runtime.errors import HeadhuntError

if TYPE_CHECKING:
    import plotly.graph_objects as go


LOUD = "HEADHUNT_RAISE_FAULTS"
"""Where this variable is set, as in tests, a fault of ours ends the report, instead of leaving out a part of it."""


class LeftOutError(Exception):
    """A section that has nothing to show; the message says why."""


def reason_of(error: Exception) -> str:
    """Why a part of the page is left out: what an error for a reader says, or that it is a fault of ours, with its type. Raises
    such a fault again where it is to be loud."""
    if isinstance(error, LeftOutError | HeadhuntError):
        return str(error)
    if os.environ.get(LOUD):
        raise error
    what = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return f"Headhunt failed here ({what}). A file of the run is damaged, or this is a fault of Headhunt: please report it."


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers; `numeric` are the columns set flush right. With a `summary` it is folded up below that line."""

    columns: list[str]
    rows: list[list[str]]
    numeric: set[int] = field(default_factory=set)
    summary: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture with a caption; `uri` is its data URI, or None for one that is not there, which leaves a placeholder."""

    caption: str
    uri: str | None


@dataclass(frozen=True)
class Block:
    """A part of a section below a smaller heading. Several figures, or pictures, stand in a grid; a single one takes the whole
    width.

    The two pictures of each of `pairs` stay side by side.
    """

    title: str
    text: str
    figures: dict[str, go.Figure] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    pairs: list[tuple[Picture, Picture]] = field(default_factory=list)


@dataclass(frozen=True)
class Listing:
    """Lines of text in a fixed pitch, folded up below a summary."""

    summary: str
    text: str


@dataclass(frozen=True)
class PageSection:
    """One section: a heading, a sentence, figures or tables below it, and then its blocks.

    Figures have names, no two on the page the same: `reports build --only NAME` writes one by itself. One with a width of its own
    scrolls in a box as wide as the page.
    """

    name: str
    title: str
    text: str
    figures: dict[str, go.Figure] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)

    def every_figure(self) -> Iterator[tuple[str, go.Figure]]:
        """Its own figures with their names, then those of its blocks."""
        yield from self.figures.items()
        for block in self.blocks:
            yield from block.figures.items()
