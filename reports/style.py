"""The common style of all figures."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

DECADES = 4
"""Maximum span of a learning-rate axis in decades, from the highest rate down; a cosine ends near 0 and leaves at the bottom."""

TOP5 = "top-5"
"""Marks the heading of a column of top-5 accuracies; see `reports.top5`."""

PERCENT = "~%"
"""Tick format: percentages with as many digits as needed to distinguish the ticks."""

SHARES: dict[str, Any] = {"tickformat": PERCENT, "autorangeoptions": {"clipmin": 0, "clipmax": 1}}
"""Options of an axis of shares: percentages, clipped to 0 % and 100 %."""

COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#475569", "#92400e")


def figure(title_x: str, title_y: str, **axis: Any) -> go.Figure:
    """An empty figure in the house style; `axis` goes to the y axis."""
    import plotly.graph_objects as go

    drawn = restyle(go.Figure())
    drawn.update_xaxes(title=title_x)
    drawn.update_yaxes(title=title_y, **axis)
    return drawn


def restyle(drawn: go.Figure, height: int = 380) -> go.Figure:
    """Applies the house style to a figure, e.g. one drawn by Optuna: full width, no title, `height` in pixels, a horizontal
    colour bar above it."""
    drawn.update_xaxes(automargin=True, title={"standoff": 10})
    drawn.update_yaxes(automargin=True, title={"standoff": 10})
    drawn.update_layout(
        template="plotly_white",
        colorway=COLOURS,
        title=None,
        width=None,
        height=height,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "tracegroupgap": 0},
        dragmode=False,  # touching a figure scrolls the page; zooming is in the mode bar
        font={"family": "system-ui, sans-serif", "size": 13},
        hoverlabel={"namelength": -1},
    )
    lying = {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom", "len": 0.7, "thickness": 10}
    bar = {**lying, "nticks": 5, "title": {"side": "top"}}
    drawn.update_traces(colorbar=bar, selector={"type": "contour"})
    return drawn


def whole_ticks(values: Iterable[float | None], most: int = 6) -> dict[str, Any]:
    """Ticks of an axis of epochs, trials or photos: at multiples of a whole step, about `most` of them."""
    places = [float(value) for value in values if value is not None and math.isfinite(value)] or [0.0]
    span = max(1.0, max(places) - min(places))
    steps = (digit * 10**exponent for exponent in range(20) for digit in (1, 2, 5))
    return {"tick0": 0, "dtick": next(step for step in steps if span / step <= most)}


def log_ticks(low: float, high: float, most: int = 6) -> dict[str, Any]:
    """A logarithmic axis from `low` to `high` with 1 to `most` labels, few enough for a phone: 1e-4, 3e-4, 1e-3, …"""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits, step in (((1, 2, 3, 5), 1), ((1, 3), 1), *(((1,), step) for step in range(1, len(exponents) + 1))):
        places = [(digit, exponent) for exponent in exponents[::step] for digit in digits]
        within = [(digit, exponent) for digit, exponent in places if low / 1.5 <= digit * 10.0**exponent <= high * 1.5]
        if len(within) <= most:
            break
    values = [digit * 10.0**exponent for digit, exponent in within]
    return {"type": "log", "tickvals": values, "ticktext": [f"{digit}e{exponent}" for digit, exponent in within]}


def rate_axis(rates: Iterable[float], most: int = 6) -> dict[str, Any]:
    """A logarithmic axis for learning rates, ignoring 0 and NaN: at least one decade, at most DECADES."""
    places = [math.log10(rate) for rate in rates if rate > 0] or [-6.0, -2.0]
    top = max(places)
    low = max(min(places), top - DECADES)
    widened = max(0.0, 1 - (top - low)) / 2
    ends = [low - widened - 0.2, top + widened + 0.2]
    return {"range": ends, **log_ticks(10 ** ends[0], 10 ** ends[1], most)}


def distinct_labels(values: Sequence[float], digits: int = 2) -> list[str]:
    """Numbers as labels, with `digits` significant digits, or as many as needed to distinguish them; integer parts are not
    rounded: 0.2, 0.2001, 0.2002 and 128, 512."""
    different = {f"{value:.12g}" for value in values}
    for count in range(digits, 14):
        labels = [_rounded(value, count) for value in values]
        if len(set(labels)) >= len(different):
            break
    return labels


def _rounded(value: float, digits: int) -> str:
    decimals = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
    return re.sub(r"e([-+])0?", r"e\1", f"{round(value, max(0, decimals)):.15g}")


def shortened(names: Sequence[str], letters: int) -> list[str]:
    """Names as labels of at most `letters` letters: longer ones lose their end, or their middle if several begin alike, with as
    many more letters as needed to distinguish them."""
    labels = {name: name if len(name) <= letters else name[: letters - 1] + "…" for name in names}
    for room in range(letters, max(map(len, labels), default=0) + 1):
        counts = Counter(labels.values())
        alike = [name for name, label in labels.items() if counts[label] > 1]
        if not alike:
            break
        labels |= {name: _both_ends(name, room) for name in alike}
    return [labels[name] for name in names]


def _both_ends(name: str, letters: int) -> str:
    if len(name) <= letters:
        return name
    return name[: letters // 2] + "…" + name[letters // 2 + 1 - letters :]


def text(value: object) -> str:
    """A name with HTML escaped: plotly interprets some HTML in labels."""
    return html.escape(str(value), quote=False)


def share(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %"
