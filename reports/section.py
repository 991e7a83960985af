"""The parts of a section of the page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from features.runtime.errors import HeadhuntError

if TYPE_CHECKING:
    import plotly.graph_objects as go


RAISE_INTERNAL_ERRORS = "HEADHUNT_RAISE_FAULTS"
"""If this environment variable is set (as in tests), an internal error aborts the report instead of leaving out a part of it."""


class LeftOutError(Exception):
    """The section has nothing to show; the message says why."""


def reason_of(error: Exception) -> str:
    """Why a part of the page is left out: the message of an expected error, or a note about an internal one. Reraises internal
    errors if RAISE_INTERNAL_ERRORS is set."""
    if isinstance(error, LeftOutError | HeadhuntError):
        return str(error)
    if os.environ.get(RAISE_INTERNAL_ERRORS):
        raise error
    what = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return (
        f"Headhunt failed here ({what}). A file of the run may be damaged; otherwise this is a bug: please report it."
    )


@dataclass(frozen=True)
class Table:
    """Rows of text; the columns in `numeric` are right-aligned. A table with a `summary` is collapsed under it."""

    columns: list[str]
    rows: list[list[str]]
    numeric: set[int] = field(default_factory=set)
    summary: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture with a caption; `uri` is its data URI, or None for a missing picture, which is shown as a placeholder."""

    caption: str
    uri: str | None


@dataclass(frozen=True)
class Block:
    """A part of a section under a smaller heading. Several figures or pictures are laid out as a grid, a single one takes the
    full width.

    The two pictures of each pair in `pairs` stay side by side.
    """

    title: str
    text: str
    figures: dict[str, go.Figure] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    pairs: list[tuple[Picture, Picture]] = field(default_factory=list)


@dataclass(frozen=True)
class Listing:
    """Monospaced text, collapsed under a summary."""

    summary: str
    text: str


@dataclass(frozen=True)
class PageSection:
    """One section: a heading, a text, tables, notes (how to read them, collapsed) and figures, and then its blocks.

    The names of figures are unique on the page: `reports build --only NAME` writes a single one. A figure with its own width
    scrolls in a box as wide as the page.
    """

    name: str
    title: str
    text: str
    figures: dict[str, go.Figure] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    notes: str = ""

    def every_figure(self) -> Iterator[tuple[str, go.Figure]]:
        """The section's own figures with their names, then those of its blocks."""
        yield from self.figures.items()
        for block in self.blocks:
            yield from block.figures.items()
