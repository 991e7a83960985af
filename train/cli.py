"""`headhunt train`: promote, export."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from features.command import DEFAULT_CONFIG, ConfigOption, JsonOption, SetOption, command, settings
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
    """Fine-tune the winners."""
    with command(json_) as output:
        chosen = [] if top is None else [f"train.top={top}"]
        result = promote(settings(context, TrainRun, config, [*set_, *chosen]), trial)
        table = Table("trial", "val frozen", "val tuned", "test tuned", "test top-5", "seconds", "folder")
        for row in result["promotions"]:
            tuned = row["tuned"]
            table.add_row(
                str(row["trial"]),
                f"{row['frozen']['val_accuracy']:.4f}",
                f"{tuned['val_accuracy']:.4f}",
                f"{tuned['test_accuracy']:.4f}",
                f"{tuned['test_top5_accuracy']:.4f}",
                f"{row['seconds']:.0f}",
                row["folder"],
            )
        output.console.print(table)
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
