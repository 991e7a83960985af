"""`headhunt reports`: build, fidelity."""

from __future__ import annotations

import typer

from features.command import DEFAULT_CONFIG, ConfigOption, JsonOption, SetOption, command, settings
from reports.build import build
from reports.config import Run
from reports.fidelity.experiment import fidelity
from search.certificate import Certificate

app = typer.Typer(no_args_is_help=True, help="Stage 4: any artifact in, figures and HTML out.")


@app.callback()
def group() -> None:
    """Stage 4: any artifact in, figures and HTML out."""


@app.command("build")
def build_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    json_: JsonOption = False,
) -> None:
    """Write report/index.html, one self-contained page."""
    with command(json_) as output:
        result = build(settings(context, Run, config, set_))
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
        run = settings(context, Run, config, set_)
        result = fidelity(run)
        certificate = Certificate.model_validate(result["certificate"])
        for line in certificate.lines(certificate.finetune, run.train.fidelity_floor):
            output.console.print(line)
        even = result["cost"]["break_even_trials"]
        output.console.print(f"The cache pays from {even} trials on." if even else "The cache does not pay here.")
        output.console.print(f"Page: {result['page']}#fidelity")
        output.result(result)
