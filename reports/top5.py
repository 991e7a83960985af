"""Removes top-5 accuracy from the page where it is not informative, see `search.top5`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from reports.section import PageSection, Table
from reports.style import TOP5


def without(section: PageSection) -> PageSection:
    """The section without columns of top-5 accuracies in its tables and those of its blocks."""
    blocks = [replace(block, tables=_narrowed(block.tables)) for block in section.blocks]
    return replace(section, tables=_narrowed(section.tables), blocks=blocks)


def _narrowed(tables: Sequence[Table]) -> list[Table]:
    return [_without_columns(table) for table in tables]


def _without_columns(table: Table) -> Table:
    kept = [place for place, column in enumerate(table.columns) if TOP5 not in column]
    return replace(
        table,
        columns=[table.columns[place] for place in kept],
        rows=[[row[place] for place in kept] for row in table.rows],
        numeric={new for new, place in enumerate(kept) if place in table.numeric},
    )
