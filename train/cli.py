"""`headhunt train`: promote, export, baselines."""

from __future__ import annotations

from typing import Annotated

import typer

from features.command import DEFAULT_CONFIG, ConfigOption, JsonOption, SetOption, command, settings
from train.baselines import BASELINES, measure_baselines
from train.comparison import comparison_table
from train.config import TrainRun
from train.export import FORMATS, export
from train.promote import promote

app = typer.Typer(no_args_is_help=True, help="Stage 3: study in, fine-tuned and exported models out.")


@app.command("promote")
def promote_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    top: Annotated[int | None, typer.Option(min=1, help="How many of the best; default: train.top.")] = None,
    trial: Annotated[list[int], typer.Option(help="This trial instead. Repeatable.")] = [],  # noqa: B006
    json_: JsonOption = False,
) -> None:
    """Fine-tune the winners, and measure what they are compared with."""
    with command(json_) as output:
        chosen = [] if top is None else [f"train.top={top}"]
        run = settings(context, TrainRun, config, [*set_, *chosen])
        result = promote(run, trial)
        result["baselines"] = measure_baselines(run)["baselines"]
        output.console.print(comparison_table(run, result["baselines"], result["promotions"]))
        output.result(result)


@app.command("export")
def export_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    trial: Annotated[int | None, typer.Option(help="The promoted trial; default: the best one.")] = None,
    format_: Annotated[str, typer.Option("--format", help=f"Any of {','.join(FORMATS)}.")] = ",".join(FORMATS),
    json_: JsonOption = False,
) -> None:
    """Write the model bundle of a promoted trial."""
    with command(json_) as output:
        formats = [name.strip() for name in format_.split(",") if name.strip()]
        result = export(settings(context, TrainRun, config, set_), trial, formats)
        output.console.print(
            f"Trial {result['trial']} is in {result['folder']}: {', '.join(result['formats'])}, labels, model card."
        )
        output.result(result)


@app.command("baselines")
def baselines_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    only: Annotated[str | None, typer.Option(help=f"One of {', '.join(BASELINES)}.", metavar="NAME")] = None,
    json_: JsonOption = False,
) -> None:
    """Measure what the promoted models are compared with."""
    with command(json_) as output:
        run = settings(context, TrainRun, config, set_)
        result = measure_baselines(run, only)
        output.console.print(comparison_table(run, result["baselines"], []))
        output.result(result)
