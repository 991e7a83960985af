"""`headhunt reports`: build, fidelity."""

from __future__ import annotations

from typing import Annotated

import typer

from features.runtime.commands.frame import DEFAULT_CONFIG, ConfigOption, JsonOption, SetOption, command
from features.runtime.errors import UsageError
from features.runtime.log import counted
from reports.formats import Format

app = typer.Typer(no_args_is_help=True, help="Stage 4: any artifact in, figures and HTML out.")


@app.callback()
def group() -> None:
    """Stage 4: any artifact in, figures and HTML out."""


@app.command("build")
def build_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    only: Annotated[str | None, typer.Option(metavar="NAME", help="Write only this section or figure.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="Format for --only; a PNG holds one figure.")] = "html",
    json_: JsonOption = False,
) -> None:
    """Write report/index.html, one self-contained page."""
    with command(json_) as output:
        from features.run_file import settings
        from reports.build import build, build_only
        from reports.config import Run

        if only is None and format_ != "html":
            raise UsageError(
                f"--format {format_}: the page must be HTML; --only NAME writes a part of it as {format_}."
            )
        run = settings(context, Run, config, set_)
        if only is not None:
            result = build_only(run, only, format_)
            output.console.print(result["report"])
            output.result(result)
            return
        result = build(run)
        if not output.is_stage:
            output.console.print(result["verdict"]["text"])
        left_out = f"; left out: {', '.join(result['left_out'])}" if result["left_out"] else ""
        output.console.print(f"Report: {result['report']} ({', '.join(result['sections']) or 'empty'}{left_out})")
        output.result(result)


@app.command("fidelity")
def fidelity_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    json_: JsonOption = False,
) -> None:
    """Measure how well the cached search predicts the full run, and what it saves."""
    with command(json_) as output:
        from features.run_file import settings
        from reports.config import Run
        from reports.fidelity.experiment import fidelity
        from search.certificate import Certificate

        run = settings(context, Run, config, set_)
        result = fidelity(run)
        certificate = Certificate.model_validate(result["certificate"])
        for line in certificate.lines(certificate.finetune, run.train.fidelity_floor):
            output.console.print(line)
        even = result["cost"]["break_even_trials"]
        pays = f"from {counted(even, 'trial')} on" if even else "never: a trial through the network takes no longer"
        output.console.print(f"The cache pays off {pays}.")
        output.console.print(f"Page: {result['page']}#fidelity")
        output.result(result)
