"""A confirmation on the terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table

from search.config import SearchRun
from search.confirm.ranking import Confirmed
from search.first_trials import label_of


def confirmation_table(run: SearchRun, result: dict[str, Any]) -> Table:
    """The table of `search confirm`, from its `--json` object."""
    rows = [Confirmed.model_validate(row) for row in result["confirmed"]]
    table = Table("trial", f"mean {run.search.objective}", "95 % interval", "as searched", "p against best")
    table.title = f"{run.name}: {len(rows[0].seeds)} seeds"
    compared = (
        "p: how often the best would be this far ahead if the trials did not differ, corrected for choosing the best of these "
        "and for the number of comparisons. A large p does not mean that two trials are equal: few seeds show only large "
        "differences. "
    )
    is_compared = any(row.p_value is not None for row in rows)
    table.caption = (
        f"{compared if is_compared else ''}As searched: the single-seed value each trial was chosen by, which favours lucky "
        "seeds. Intervals are over seeds, not over other photos; a linear probe depends on no seed."
    )
    for row in rows:
        searched = f"{row.searched:.4f}"
        if row.mean is None:
            table.add_row(label_of(row.number, row.first), "failed", row.failure, searched, "")
            continue
        spread = show_interval(row, "{:.4f}".format)
        table.add_row(label_of(row.number, row.first), f"{row.mean:.4f}", spread, searched, show_p(row.p_value))
    return table


def show_p(p_value: float | None) -> str:
    """A p-value as text; empty for the best, which is not compared with itself."""
    if p_value is None:
        return ""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def show_confirmed(found: Confirmed | None, show: Callable[[float], str] = "{:.4f}".format) -> str:
    """A trial's confirmed mean with its interval, `0.9900 (0.9470 to 1.0000)`; empty if it is not confirmed."""
    if found is None or found.mean is None:
        return ""
    return f"{show(found.mean)} ({show_interval(found, show)})"


def show_interval(found: Confirmed, show: Callable[[float], str]) -> str:
    """The interval of a confirmed mean, or why it has none."""
    if found.first == "probe":
        return "solved, the same with every seed"
    if found.interval is None:
        return "the same with every seed"
    return f"{show(found.interval.low)} to {show(found.interval.high)}"
