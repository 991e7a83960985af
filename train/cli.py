"""`headhunt train`: promote, export, predict, baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.runtime.commands.frame import (
    DEFAULT_CONFIG,
    ConfigOption,
    ExecutorOption,
    JsonOption,
    SetOption,
    WorkersOption,
    command,
)
from features.runtime.errors import HeadhuntError, UsageError
from features.runtime.log import counted, log, relative
from train.names import BASELINES, FORMATS, MODEL_FORMATS

app = typer.Typer(no_args_is_help=True, help="Stage 3: study in, fine-tuned and exported models out.")


@app.command("promote")
def promote_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    top: Annotated[int | None, typer.Option(min=1, help="Number of winners to promote; default: train.top.")] = None,
    trial: Annotated[list[int], typer.Option(help="Promote this trial instead. Repeatable.")] = [],  # noqa: B006
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    json_: JsonOption = False,
) -> None:
    """Fine-tune the winners and measure the baselines."""
    with command(json_) as output:
        from features.run_file import settings
        from train.baselines.comparison import comparison_table
        from train.baselines.measure import baselines_json, measure_baselines
        from train.config import TrainRun
        from train.promotion.promote import promote
        from train.verdict import best_verdict

        chosen = [] if top is None else [f"train.top={top}"]
        run = settings(context, TrainRun, config, [*set_, *chosen]).with_workers(workers, executor)
        promotions = promote(run, trial)
        baselines = measure_baselines(run, command="train promote")
        verdict, first = best_verdict(run, [each.folder for each in promotions]), best_verdict(run)
        output.console.print(verdict.text)
        if first.title != verdict.title:
            output.console.print(f"`headhunt train export` still exports {first.title}, which ranks first.")
        output.console.print(comparison_table(run, baselines, promotions))
        output.result(
            {
                "verdict": verdict.model_dump(mode="json"),
                "promotions": [each.summary().model_dump(mode="json") for each in promotions],
                "baselines": baselines_json(baselines),
            }
        )


@app.command("export")
def export_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    trial: Annotated[int | None, typer.Option(help="The promoted trial; default: the best one.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe of the promotion (first digits); default: the best.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help=f"Comma-separated list of {','.join(FORMATS)}; default: train.formats."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Export a promoted trial as a model bundle. Every format is reloaded and compared with the promotion."""
    with command(json_) as output:
        from rich.table import Table

        from features.run_file import settings
        from search.confirm.ranking import unused_confirmation
        from train.config import TrainRun
        from train.exports.export import export
        from train.exports.record import ExportedFormat

        formats = None if format_ is None else [name.strip() for name in format_.split(",") if name.strip()]
        run = settings(context, TrainRun, config, set_)
        if trial is None and (unused := unused_confirmation(run)):
            log.print(
                f"{unused} The promotion that is best on the validation photos is exported instead.", style="yellow"
            )
        result = export(run, trial, formats, recipe)
        if not output.is_stage:
            output.console.print(result.verdict.text)
        table = Table("format", "path", "largest difference", "allowed")
        for name, row in result.formats.items():
            compared = ("", "")
            if isinstance(row, ExportedFormat):
                compared = (f"{row.max_abs_difference:.1e}", f"{row.tolerance:g}")
            table.add_row(name, row.path, *compared)
        table.caption = (
            f"Differences in probability from the promotion's predictions for {counted(result.photos, 'validation photo')}. "
            f"Labels and a model card are in {result.folder}."
        )
        output.console.print(table)
        output.result(result.model_dump(mode="json"))


@app.command("predict")
def predict_command(
    context: typer.Context,
    images: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Photos of any size and format, and folders of them.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    model: Annotated[
        Path | None, typer.Option(help="Use this model file or bundle folder instead; needs no configuration file.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help=f"One of {', '.join(MODEL_FORMATS)}; default: the first one exported."),
    ] = None,
    trial: Annotated[int | None, typer.Option(help="The exported trial; default: the best one.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the predictions to this CSV file: path, rank, class, label, probability.", metavar="FILE"
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Predict the top five classes of any photos with an exported model. Skips unreadable files, then exits with status 1."""
    with command(json_) as output:
        from rich.table import Table

        from features.run_file import settings
        from train.config import TrainRun
        from train.exports.predict import check_out, exported_model, model_in, predict_images, write_predictions

        if out is not None:
            check_out(out)
        if model is not None and trial is not None:
            raise UsageError("--model and --trial are both given. Remove one of them.")
        if model is None:
            chosen = exported_model(settings(context, TrainRun, config, set_), trial, format_)
        else:
            chosen = model_in(model, format_)
        result = predict_images(chosen, images)
        if out is not None:
            write_predictions(out, result.images)
            output.console.print(f"Wrote the predictions for {counted(len(result.images), 'photo')} to {relative(out)}")
        for row in result.images if out is None else ():
            table = Table("class", "probability", title=row.image, title_justify="left")
            for found in row.predictions:
                table.add_row(found.name, f"{found.probability:.4f}")
            output.console.print(table)
        output.result(result.as_json())
        if failed := len(result.failed):
            total = failed + len(result.images)
            raise HeadhuntError(
                f"{failed} of {total} photos or folders could not be read; see the reasons above."
                + (" The others were predicted." if result.images else "")
            )


@app.command("baselines")
def baselines_command(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    only: Annotated[str | None, typer.Option(help=f"One of {', '.join(BASELINES)}.", metavar="NAME")] = None,
    json_: JsonOption = False,
) -> None:
    """Measure the baselines that the promoted models are compared with."""
    with command(json_) as output:
        from features.run_file import settings
        from train.baselines.comparison import comparison_table
        from train.baselines.measure import baselines_file, baselines_json, measure_baselines
        from train.config import TrainRun

        run = settings(context, TrainRun, config, set_)
        result = measure_baselines(run, only)
        output.console.print(comparison_table(run, result, []))
        output.result({"baselines": baselines_json(result), "record": relative(baselines_file(run.workdir))})
