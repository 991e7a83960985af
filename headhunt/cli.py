"""The command `headhunt`: the stages' command-line apps combined, and the commands that span them."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from features.cli import app as features_app
from features.runtime.commands.frame import (
    DEFAULT_CONFIG,
    INTERRUPTED,
    ConfigOption,
    JsonOption,
    SetOption,
    command,
    discard_output,
)
from features.runtime.errors import UsageError
from features.runtime.interrupts import interrupt
from features.runtime.log import log, relative
from headhunt.demo import DEMO
from headhunt.service.cli import add_commands
from reports.cli import app as reports_app
from search.cli import app as search_app
from train.cli import app as train_app

if TYPE_CHECKING:
    from reports.config import Run

DATASETS: dict[str, dict[str, Any]] = {
    "stanford_cars": {"root": "data/stanford_cars"},
    "folder": {"root": "data/photos"},
    "csv": {"file": "data/photos.csv"},
    "toy_cars": {},
}
"""What `init` writes under `dataset` for each kind; all other values are defaults."""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.add_typer(features_app, name="features")
app.add_typer(search_app, name="search")
app.add_typer(train_app, name="train")
app.add_typer(reports_app, name="reports")


def main() -> None:
    """Entry point of the console script. SIGTERM (a scheduler's preemption) and SIGHUP (a closed terminal, unless under nohup)
    are handled like Ctrl-C: state is saved, exit status 130."""
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)
    try:
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, {signal.SIGINT}
        )  # stages start with SIGINT blocked, see features.runtime.commands.stages
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if sys.stdout is None:  # closed by the caller
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        app(prog_name="headhunt")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        discard_output()
        where = f" {relative(Path(error.filename))}" if isinstance(error.filename, str) else " the output"
        log.print(
            f"headhunt: cannot write{where}: {error.strerror}. Free some space, then rerun the same command.",
            style="red",
        )
        sys.exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        sys.stdout.write(f"headhunt {metadata.version('headhunt')}\n")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = (
        False
    ),
) -> None:
    """Find the best classifier head for a frozen vision backbone, and the learning-rate schedule to train it with."""
    context.obj = _whole_run


def _whole_run() -> type[Run]:
    """The model of the whole configuration file: every command validates all sections."""
    from reports.config import Run

    return Run


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write.")] = Path(),
    dataset: Annotated[
        Literal["stanford_cars", "folder", "csv", "toy_cars"], typer.Option(help="The kind of data set.")
    ] = "stanford_cars",
    json_: JsonOption = False,
) -> None:
    """Write a commented headhunt.yaml with every default, and its JSON Schema for the editor."""
    with command(json_) as output:
        from features.runtime.atomic import write_text
        from features.runtime.commands.template import commented_yaml
        from reports.config import Run

        file = folder / DEFAULT_CONFIG
        if file.exists():
            raise UsageError(
                f"{relative(file)} already exists. Edit it, or choose another folder: `headhunt init DIR`."
            )
        run = _configuration({"dataset": {"kind": dataset, **DATASETS[dataset]}})
        schema = folder / "headhunt.schema.json"
        write_text(schema, json.dumps(Run.model_json_schema(), indent=2) + "\n")
        write_text(file, f"# yaml-language-server: $schema={schema.name}\n{commented_yaml(run)}")
        output.console.print(f"Wrote {relative(file)} and {schema.name}. Next: edit `dataset`, then `headhunt run`.")
        output.result({"config": relative(file), "schema": relative(schema)})


@app.command()
def run(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    set_: SetOption = [],  # noqa: B006
    json_: JsonOption = False,
) -> None:
    """Prepare, cache, search, confirm, promote, export and report; skips what is done."""
    with command(json_) as output:
        from features.run_file import settings
        from headhunt.run import run_stages
        from reports.config import Run

        checked = settings(context, Run, config, set_)
        run_stages(checked, config, set_, output)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("headhunt-demo"),
    json_: JsonOption = False,
) -> None:
    """Run the whole pipeline on drawn cars: no download, a few minutes on two cores."""
    with command(json_) as output:
        from features.runtime.atomic import write_text
        from features.runtime.commands.template import commented_yaml
        from headhunt.run import run_stages

        file = out / DEFAULT_CONFIG
        checked = _configuration({**DEMO, "workdir": str(out / "run")})
        text = f"# The configuration of `headhunt demo`.\n{commented_yaml(checked)}"
        if not file.exists():
            write_text(file, text)
        elif file.read_text(encoding="utf-8") != text:
            raise UsageError(
                f"{relative(file)} exists and differs from this demo's. Run it with `headhunt run -c {relative(file)}`, or "
                "choose another folder with --out."
            )
        run_stages(checked, file, (), output)


def _configuration(raw: dict[str, Any]) -> Run:
    from features.run_file import validate
    from reports.config import Run

    return validate(Run, raw, "of the defaults")


add_commands(app)
