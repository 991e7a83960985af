"""How every figure looks."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

RATE_AXIS: dict[str, Any] = {"type": "log", "tickformat": "~e", "nticks": 6, "minor": {"showgrid": False}}
"""A learning rate's y axis."""

COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#475569", "#92400e")


def figure(title_x: str, title_y: str, **axis: Any) -> go.Figure:
    """An empty figure in the house style; `axis` goes to the y axis."""
    import plotly.graph_objects as go

    drawn = go.Figure()
    drawn.update_layout(
        template="plotly_white",
        colorway=COLOURS,
        height=380,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "tracegroupgap": 0},
        dragmode=False,  # a finger scrolls the page; zooming is in the figure's own bar
        font={"family": "system-ui, sans-serif", "size": 13},
        hoverlabel={"namelength": -1},
    )
    drawn.update_xaxes(title=title_x)
    drawn.update_yaxes(title=title_y, **axis)
    return drawn


def text(value: object) -> str:
    """A name as text: plotly reads some HTML in labels."""
    return html.escape(str(value), quote=False)


def share(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.1f} %"
