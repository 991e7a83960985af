"""No pruning: every trial trains for all its epochs."""

from __future__ import annotations

from dataclasses import dataclass

from search.pruners.base import Judgement


@dataclass(frozen=True)
class Never:
    """Has no rungs."""

    def rungs(self) -> list[int]:
        return []

    def prunes(self, judgement: Judgement) -> bool:
        return False
