"""`reports build`: one self-contained page."""

from __future__ import annotations

from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from features.atomic import write_text
from features.command import relative
from reports.config import Run
from reports.page import SECTIONS, collect_sections, headline

if TYPE_CHECKING:
    import plotly.graph_objects as go


def build(run: Run) -> dict[str, Any]:
    """Writes `report/index.html` from what the run's folder holds; returns the `--json` object of `reports build`.

    The page needs no network: plotly.js is in it. Sections without their artifacts are left out, and say so.
    """
    from plotly.offline import get_plotlyjs

    sections, left_out = collect_sections(run)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["drawing"] = _html
    page = environment.get_template("page.html").render(
        run=run,
        backbone=Path(run.features.backbone).stem if run.features.preprocessing else run.features.backbone,
        sections=sections,
        left_out=[(SECTIONS[name][0], reason) for name, reason in left_out.items()],
        headline=headline(run),
        plotlyjs=get_plotlyjs() if any(True for section in sections for _ in section.every_figure()) else "",
        version=metadata.version("headhunt"),
        built=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )
    path = run.workdir / "report" / "index.html"
    write_text(path, page)
    return {"report": relative(path), "sections": [section.name for section in sections], "left_out": sorted(left_out)}


def _html(figure: go.Figure, name: str) -> str:
    """A figure as the page shows it; `name` is told apart from every other's."""
    rendered: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"figure-{name}",
        config={"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d"]},
    )
    return rendered
