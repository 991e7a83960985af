"""`reports build`: one self-contained page, or a single section or figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from features.runtime.atomic import atomic_path, make_folder, write_text
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import relative
from reports.config import Run
from reports.formats import Format
from reports.headline import data_line, headline, verdict
from reports.page import SECTIONS, collect_sections, make_section
from reports.section import Block, LeftOutError, PageSection

if TYPE_CHECKING:
    import plotly.graph_objects as go

PNG = {"width": 1100, "scale": 2}
"""Options of PNG figures: the default width in pixels, and the scale factor for print and high-resolution screens."""


def build(run: Run) -> dict[str, Any]:
    """Writes `report/index.html` from the run's folder; returns the `--json` object of `reports build`.

    The page works offline: it embeds plotly.js. Sections without artifacts are left out, and the page lists the reasons.
    """
    found = verdict(run)
    sections, left_out = collect_sections(run)
    path = run.workdir / "report" / "index.html"
    reasons = [(SECTIONS[name][0], reason) for name, reason in left_out.items()]
    write_text(path, _page(run, sections, reasons, headline(run), found.text))
    return {
        "verdict": found.model_dump(mode="json"),
        "report": relative(path),
        "sections": [section.name for section in sections],
        "left_out": sorted(left_out),
    }


def build_only(run: Run, name: str, format_: Format) -> dict[str, Any]:
    """Writes the section or figure with this name as `report/<name>.<format>`; returns the `--json` object.

    A PNG holds exactly one figure. Raises UsageError for an unknown name, or a section that has nothing to show.
    """
    section, figures = _find(run, name)
    path = make_folder(run.workdir / "report") / f"{name}.{format_}"
    match format_:
        case "png":
            _write_png(path, name, figures)
        case "json":
            write_text(path, _as_json(name, section, figures))
        case "html":
            shown = section or PageSection(name, name, "", figures)
            write_text(path, _page(run, [shown], [], []))
    return {"report": relative(path), "sections": [section.name] if section else [], "left_out": []}


def _find(run: Run, name: str) -> tuple[PageSection | None, dict[str, go.Figure]]:
    """A section with its figures, or a single figure."""
    if name in SECTIONS:
        try:
            section = make_section(run, name)
        except (LeftOutError, HeadhuntError) as reason:
            raise UsageError(f"--only {name}: {reason}") from None
        return section, dict(section.every_figure())
    sections, _ = collect_sections(run)
    figures = {key: figure for section in sections for key, figure in section.every_figure()}
    if name not in figures:
        raise UsageError(
            f"--only: received {name!r}; allowed are the sections of this run: "
            f"{', '.join(section.name for section in sections) or 'none yet'}; "
            f"and its figures: {', '.join(figures) or 'none yet'}."
        )
    return None, {name: figures[name]}


def _page(
    run: Run, sections: Sequence[PageSection], left_out: Sequence[tuple[str, str]], numbers: Any, said: str = ""
) -> str:
    """The page as HTML; `numbers` and the verdict `said` appear on its first screen."""
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["drawing"] = _html
    environment.filters["unbroken"] = unbroken
    return environment.get_template("page.html").render(
        run=run,
        backbone=Path(run.features.backbone).stem if run.features.preprocessing else run.features.backbone,
        sections=sections,
        left_out=left_out,
        headline=numbers,
        verdict=said if numbers else "",
        data=data_line(run) if numbers else "",
        plotlyjs=get_plotlyjs() if any(True for section in sections for _ in section.every_figure()) else "",
        version=metadata.version("headhunt"),
        built=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
    )


def unbroken(text: object) -> str:
    """A text in which no line breaks between a number and its percent sign."""
    return str(text).replace(" %", "\u00a0%")


BUTTONS = {
    "displaylogo": False,
    "responsive": True,
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}
"""Plotly's options of a figure. Its buttons are those that are needed: PNG, zoom, pan, reset; page.html places them."""


def _html(figure: go.Figure, name: str) -> str:
    """A figure as HTML; `name` must be unique on the page."""
    rendered: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=f"figure-{name}",
        config=BUTTONS,
    )
    return rendered


def _as_json(name: str, section: PageSection | None, figures: dict[str, go.Figure]) -> str:
    """A figure as plotly JSON; a section as its text, tables and figures."""
    drawn = {key: json.loads(figure.to_json()) for key, figure in figures.items()}
    if section is None:
        return json.dumps(drawn[name]) + "\n"
    parts: list[PageSection | Block] = [section, *section.blocks]
    tables = [{"columns": table.columns, "rows": table.rows} for part in parts for table in part.tables]
    texts = [part.text for part in parts]
    return (
        json.dumps({"section": name, "title": section.title, "texts": texts, "tables": tables, "figures": drawn}) + "\n"
    )


def _write_png(path: Path, name: str, figures: dict[str, go.Figure]) -> None:
    if len(figures) != 1:
        has = f"has the figures {', '.join(figures)}. Choose one of them" if figures else "has none. Use html or json"
        raise UsageError(f"--only {name} --format png: a PNG holds one figure, but this section {has}.")
    (figure,) = figures.values()
    try:
        image = figure.to_image(
            "png", **{**PNG, "width": figure.layout.width or PNG["width"]}, height=figure.layout.height
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise HeadhuntError(
            "cannot draw the figure as a PNG, which needs Chrome or Chromium: "
            f"{str(error).strip().splitlines()[0]} Install one "
            "of them, or use --format html."
        ) from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(image)
