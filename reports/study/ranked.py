"""The leaders as every section shows them: in the order of `search confirm` if it was run, else in that of the search."""

from __future__ import annotations

from typing import NamedTuple

from reports.config import Run
from search.confirm.ranking import Confirmation, confirmed_first
from search.leaderboard import Leader


class Ranked(NamedTuple):
    """The best `reports.leaders` trials, best first, and the confirmation that ranks them, if there is one."""

    leaders: list[Leader]
    confirmation: Confirmation | None

    @property
    def seeds(self) -> int:
        """The number of seeds of each confirmed leader; 0 without a confirmation."""
        return len(self.confirmation.confirmed[0].seeds) if self.confirmation else 0

    @property
    def order(self) -> str:
        """A sentence about what decides the order; empty if it is the search's own."""
        return f" {self.confirmation.order}" if self.confirmation else ""


def ranked(run: Run) -> Ranked:
    """The leaders of the page; UsageError if there are no completed trials."""
    return Ranked(*confirmed_first(run, run.reports.leaders))
