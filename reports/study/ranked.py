"""The leaders as every section shows them: in the order of `search confirm` where it has been run, else in that of the search."""

from __future__ import annotations

from typing import NamedTuple

from reports.config import Run
from search.confirm.ranking import Confirmation, confirmed_first
from search.leaderboard import Leader


class Ranked(NamedTuple):
    """The leaders, the best first, as many as `reports.leaders` says; the confirmation that ranks them, if there is one."""

    leaders: list[Leader]
    confirmation: Confirmation | None

    @property
    def seeds(self) -> int:
        """How many seeds a confirmed leader was trained with."""
        return len(self.confirmation.confirmed[0].seeds) if self.confirmation else 0

    @property
    def order(self) -> str:
        """What decides their order, a sentence; empty where it is the search's own."""
        return f" {self.confirmation.order}" if self.confirmation else ""


def ranked(run: Run) -> Ranked:
    """The leaders of the page; UsageError when no trial has run to its end."""
    return Ranked(*confirmed_first(run, run.reports.leaders))
